"""Shortcut features, which give a class away without a look at the lung: encoder, file size, shape.

(Geirhos et al., "Shortcut learning in deep neural networks", Nature Machine Intelligence 2, 2020.)
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

# A class with fewer images says nothing about a shortcut.
MIN_IMAGES: Final = 20
# So far from an AUROC of 0.5, a network gains more from the shortcut than from much of the picture.
FLAGGED_FROM: Final = 0.15
Floats = npt.NDArray[np.float64]


class Shortcut(TypedDict):
    """A shortcut in the JSON of an audit."""

    cue: str
    auroc: float
    flagged: bool


def shortcut_aurocs(facts: Mapping[str, Sequence[Any]], ill: npt.NDArray[np.bool_]) -> list[Shortcut]:
    """For each shortcut, the AUROC with which it separates pneumonia from normal.

    `facts` are columns of IMAGE_FACTS, `ill` is bool [N]. An AUROC of 0.5 separates nothing, 0 and 1 separate
    the classes perfectly. A shortcut is flagged where its AUROC is 0.15 or more from 0.5. The bytes of files
    with the same size, format and JPEG table are not flagged, because they depend on the picture itself.

    For a shortcut without order (mode, quantisation table, format), an image is ranked by the share of
    pneumonia among images with its value in the other half of the images. Empty where a class has fewer than
    20 images.
    """
    if min(int(ill.sum()), int((~ill).sum())) < MIN_IMAGES:
        return []
    width, height = _numbers(facts["width"]), _numbers(facts["height"])
    size = _numbers(facts["size_bytes"])
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = {
            "bytes": size,
            "bytes per pixel": size / (width * height),
            "pixels": width * height,
            "aspect (width / height)": width / height,
        }
    aurocs = {cue: _auroc_of_number(values, ill) for cue, values in measured.items()}
    for cue, column in (("JPEG table", "quantisation"), ("colour mode", "mode"), ("format", "format")):
        aurocs[cue] = _auroc_of_category([str(value) for value in facts[column]], ill)
    of_the_picture = {"bytes", "bytes per pixel"} if _encoded_alike(facts) else set()
    return [
        {
            "cue": cue,
            "auroc": round(auroc, 4),
            "flagged": abs(auroc - 0.5) >= FLAGGED_FROM and cue not in of_the_picture,
        }
        for cue, auroc in aurocs.items()
        if auroc is not None
    ]


def _encoded_alike(facts: Mapping[str, Sequence[Any]]) -> bool:
    return all(len(set(facts[name])) == 1 for name in ("width", "height", "format", "quantisation"))


def _numbers(values: Sequence[Any]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _auroc_of_number(values: Floats, ill: npt.NDArray[np.bool_]) -> float | None:
    known = np.isfinite(values)
    if not ill[known].any() or ill[known].all():
        return None
    return float(roc_auc_score(ill[known], values[known]))


def _auroc_of_category(values: Sequence[str], ill: npt.NDArray[np.bool_]) -> float | None:
    """The mean over both halves of the AUROC of shares learnt on the other half.

    Shares learnt on the same images would identify images with a rare value.
    """
    codes = np.unique(np.array(values, dtype=str), return_inverse=True)[1].reshape(-1)
    half = np.zeros(len(codes), bool)
    for sick in (False, True):
        members = np.flatnonzero(ill == sick)
        half[np.random.default_rng(0).permutation(members)[::2]] = True
    aurocs = []
    for part in (half, ~half):
        share = _shares(codes[~part], ill[~part], int(codes.max()) + 1)
        aurocs.append(roc_auc_score(ill[part], share[codes[part]]))
    return float(np.mean(aurocs))


def _shares(codes: npt.NDArray[np.int64], ill: npt.NDArray[np.bool_], count: int) -> Floats:
    """The share of pneumonia among the images of each code, shrunk to the overall share by one more image."""
    images = np.bincount(codes, minlength=count)
    return (np.bincount(codes, weights=ill, minlength=count) + ill.mean()) / (images + 1)
