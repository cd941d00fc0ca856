"""Shortcut features, which give a class away without a look at the lung: encoder, size, exposure, series.

(Geirhos et al., "Shortcut learning in deep neural networks", Nature Machine Intelligence 2, 2020.)
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

# A class with fewer images says nothing about a shortcut.
MIN_IMAGES: Final = 20
# So far from an AUROC of 0.5, a network gains more from the shortcut than from much of the picture.
FLAGGED_FROM: Final = 0.15
PICTURE_FACTS: Final = ("brightness", "contrast", "sharpness", "border")
_CATEGORIES: Final = {"JPEG table": "quantisation", "colour mode": "mode", "format": "format"}
# Of an audit: columns of IMAGE_FACTS, and the patient.
SHORTCUT_FACTS: Final = (
    "width", "height", "size_bytes", *PICTURE_FACTS, *_CATEGORIES.values(), "patient",
)  # fmt: skip
SERIES_PATIENTS: Final = 100
_NUMBER: Final = re.compile(r"\d+")
Floats = npt.NDArray[np.float64]


class Shortcut(TypedDict):
    """A shortcut in the JSON of an audit."""

    cue: str
    auroc: float
    flagged: bool


def shortcut_aurocs(facts: Mapping[str, Sequence[Any]], positive: npt.NDArray[np.bool_]) -> list[Shortcut]:
    """For each shortcut, the AUROC with which it separates images that are `positive` from the others.

    `facts` are columns of SHORTCUT_FACTS, `positive` is bool [N]: pneumonia or normal, bacterial or viral. An
    AUROC of 0.5 separates nothing, 0 and 1 separate perfectly. A shortcut is flagged where its AUROC is 0.15
    or more from 0.5. Never flagged are brightness, contrast and sharpness, and the bytes of files with the
    same size, format and JPEG table: the disease itself changes them. Neither is the series, which no network
    sees; images of one series may share what it does see.

    For a shortcut without order (mode, quantisation table, format, series), an image is ranked by the share
    of positive images among those with its value in the other half of the images. Empty where there are fewer
    than 20 images of either kind.
    """
    if min(int(positive.sum()), int((~positive).sum())) < MIN_IMAGES:
        return []
    aurocs = {cue: _auroc_of_number(values, positive) for cue, values in _measured(facts).items()}
    for cue, column in _CATEGORIES.items():
        aurocs[cue] = _auroc_of_category([str(value) for value in facts[column]], positive)
    aurocs["file series"] = _auroc_of_series(facts["patient"], positive)
    never = {"brightness", "contrast", "sharpness", "file series"}
    if _encoded_alike(facts):
        never |= {"bytes", "bytes per pixel"}
    return [
        {
            "cue": cue,
            "auroc": round(auroc, 4),
            "flagged": abs(auroc - 0.5) >= FLAGGED_FROM and cue not in never,
        }
        for cue, auroc in aurocs.items()
        if auroc is not None
    ]


def series_of_patient(patient: str | None) -> int | None:
    """The hundred of the last number in a patient's key, 3 for `person347_virus`; None without a number.

    Patients of neighbouring numbers were often filmed in the same months, by the same device and people.
    """
    numbers = _NUMBER.findall(patient or "")
    return int(numbers[-1]) // SERIES_PATIENTS if numbers else None


def _measured(facts: Mapping[str, Sequence[Any]]) -> dict[str, Floats]:
    width, height = _numbers(facts["width"]), _numbers(facts["height"])
    size = _numbers(facts["size_bytes"])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "bytes": size,
            "bytes per pixel": size / (width * height),
            "pixels": width * height,
            "aspect (width / height)": width / height,
            **{name: _numbers(facts[name]) for name in PICTURE_FACTS},
        }


def _encoded_alike(facts: Mapping[str, Sequence[Any]]) -> bool:
    return all(len(set(facts[name])) == 1 for name in ("width", "height", "format", "quantisation"))


def _numbers(values: Sequence[Any]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _auroc_of_number(values: Floats, positive: npt.NDArray[np.bool_]) -> float | None:
    known = np.isfinite(values)
    if not positive[known].any() or positive[known].all():
        return None
    return float(roc_auc_score(positive[known], values[known]))


def _auroc_of_category(values: Sequence[str], positive: npt.NDArray[np.bool_]) -> float | None:
    """The mean over both halves of the AUROC of shares learnt on the other half.

    Shares learnt on the same images would identify images with a rare value.
    """
    codes = np.unique(np.array(values, dtype=str), return_inverse=True)[1].reshape(-1)
    half = np.zeros(len(codes), bool)
    for outcome in (False, True):
        members = np.flatnonzero(positive == outcome)
        half[np.random.default_rng(0).permutation(members)[::2]] = True
    aurocs = []
    for part in (half, ~half):
        share = _shares(codes[~part], positive[~part], int(codes.max()) + 1)
        aurocs.append(roc_auc_score(positive[part], share[codes[part]]))
    return float(np.mean(aurocs))


def _auroc_of_series(patients: Sequence[str | None], positive: npt.NDArray[np.bool_]) -> float | None:
    """As of a category, over images of patients with a number; None where either kind has too few of them."""
    series = [series_of_patient(patient) for patient in patients]
    known = np.array([number is not None for number in series], bool)
    if min(int(positive[known].sum()), int((~positive[known]).sum())) < MIN_IMAGES:
        return None
    return _auroc_of_category([str(number) for number in series if number is not None], positive[known])


def _shares(codes: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], count: int) -> Floats:
    """The share of positive images of each code, shrunk to the overall share by one more image."""
    images = np.bincount(codes, minlength=count)
    return (np.bincount(codes, weights=positive, minlength=count) + positive.mean()) / (images + 1)
