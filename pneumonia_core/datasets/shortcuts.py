"""Cues that give a class away without a look at the lung: encoder, file size, shape."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

# A class with fewer images says nothing about a cue.
MIN_IMAGES: Final = 20
# From here on a network is better served by the cue than by much of what is in a picture.
FLAGGED_FROM: Final = 0.15
Floats = npt.NDArray[np.float64]


def cue_aurocs(facts: Mapping[str, Sequence[Any]], ill: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """For each cue the AUROC with which it tells pneumonia from normal: [{cue, auroc, flagged}].

    `facts` are columns of survey.FACTS_SCHEMA, `ill` bool [N]. 0.5 is no help, 0 and 1 give the class away; flagged
    is what lies 0.15 or more from 0.5. The bytes of files of one size, format and JPEG table are not: what differs
    there is the picture. For a cue without order (mode, quantisation table, format) an image is
    ranked by the share of pneumonia among images of its value in the other half of the images. Empty where a
    class has fewer than 20 images.
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
    """The mean over both halves of the AUROC of shares learnt on the other half: a value that few images have
    would else be told by itself."""
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
    """The share of pneumonia among the images of each code, drawn to that of all as if by one more image."""
    images = np.bincount(codes, minlength=count)
    return (np.bincount(codes, weights=ill, minlength=count) + ill.mean()) / (images + 1)
