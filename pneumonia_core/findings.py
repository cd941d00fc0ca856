"""The three classes, and the rules that turn their probabilities into a finding and a findings set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

CLASSES: Final = ("normal", "bacterial", "viral")
NORMAL, BACTERIAL, VIRAL = range(3)
PNEUMONIA_UNKNOWN_KIND: Final = 3
"""The label of an image with pneumonia, bacterial or viral. Labels only: no network gives it."""
LABELS: Final = (*CLASSES, "pneumonia")
"""The names of labels, in the order of their numbers."""
# The text of each set of classes; class k is in the sets whose number has bit k.
_SETS: Final = tuple(
    ",".join(name for k, name in enumerate(CLASSES) if number >> k & 1) for number in range(2 ** len(CLASSES))
)


# The share of each class whose images have it in their findings set.
DEFAULT_COVERAGE: Final = 0.9


@dataclass(frozen=True)
class Thresholds:
    """Thresholds `pneumonia` (t1) on p_pneumonia and `bacterial` (t2) on p_bacterial / p_pneumonia."""

    pneumonia: float
    bacterial: float


def missing_classes(labels: Iterable[int]) -> list[str]:
    """The classes that a training with these labels lacks.

    It needs normal images, and either both kinds of pneumonia or pneumonia of unknown kind alone.
    """
    present = set(labels)
    kinds = {BACTERIAL, VIRAL}
    without_kinds = PNEUMONIA_UNKNOWN_KIND in present and not kinds & present
    needed = {NORMAL} if without_kinds else {NORMAL, *kinds}
    return [CLASSES[label] for label in sorted(needed - present)]


@dataclass(frozen=True)
class Conformal:
    """The least probability with which each class is in a findings set, for this coverage.

    `coverage` is the share of the images of each class whose set is to hold the truth.
    """

    coverage: float
    normal: float
    bacterial: float
    viral: float


def p_pneumonia(probabilities: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """p_bacterial + p_viral, float32 [N], for probabilities [N, 3].

    The sum is in float32 for any input type, so the table, the finding and the evaluation agree to the last
    bit.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    return p[:, BACTERIAL] + p[:, VIRAL]


def bacterial_share(probabilities: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """p_bacterial / p_pneumonia, float32 [N], for probabilities [N, 3]; 0 where p_pneumonia is 0."""
    p = np.asarray(probabilities, dtype=np.float32)
    total = p_pneumonia(p)
    share = np.zeros_like(total)
    np.divide(p[:, BACTERIAL], total, out=share, where=total > 0)
    return share


def finding_labels(probabilities: npt.ArrayLike, thresholds: Thresholds) -> npt.NDArray[np.int64]:
    """Findings as indices into CLASSES, int64 [N], for probabilities float32 [N, 3].

    Normal if p_pneumonia < t1, else bacterial if p_bacterial / p_pneumonia >= t2, else viral. The thresholds
    are compared as float32, like the probabilities.
    """
    diseased = p_pneumonia(probabilities) >= np.float32(thresholds.pneumonia)
    bacterial = bacterial_share(probabilities) >= np.float32(thresholds.bacterial)
    return np.where(diseased, np.where(bacterial, BACTERIAL, VIRAL), NORMAL).astype(np.int64)


def findings(probabilities: npt.ArrayLike, thresholds: Thresholds) -> npt.NDArray[np.str_]:
    """Findings as class names, str [N], for probabilities float32 [N, 3]."""
    return np.asarray(CLASSES)[finding_labels(probabilities, thresholds)]


def always_in_set(probabilities: npt.ArrayLike, thresholds: Thresholds) -> npt.NDArray[np.bool_]:
    """The classes that are in an image's findings set under any cuts, bool [N, 3].

    They are the most probable class and the finding, which the thresholds may make another one.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    of = np.arange(len(CLASSES))
    return (of == p.argmax(axis=1)[:, None]) | (of == finding_labels(p, thresholds)[:, None])


def in_findings_set(
    probabilities: npt.ArrayLike, thresholds: Thresholds, conformal: Conformal
) -> npt.NDArray[np.bool_]:
    """The classes that cannot be ruled out, bool [N, 3], for probabilities float32 [N, 3].

    They are those of at least the probability in `conformal`, and those of `always_in_set`.
    """
    p = np.asarray(probabilities, dtype=np.float32)
    cuts = np.array([conformal.normal, conformal.bacterial, conformal.viral], np.float32)
    return (p >= cuts) | always_in_set(p, thresholds)


def findings_sets(
    probabilities: npt.ArrayLike, thresholds: Thresholds, conformal: Conformal
) -> npt.NDArray[np.str_]:
    """Findings sets as text, str [N], such as `bacterial,viral`, in the order of CLASSES."""
    powers = 1 << np.arange(len(CLASSES))
    return np.asarray(_SETS)[in_findings_set(probabilities, thresholds, conformal) @ powers]
