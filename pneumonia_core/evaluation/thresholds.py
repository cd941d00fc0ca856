"""The thresholds of the finding, chosen on validation images."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.scored_set import of_known_kind
from pneumonia_core.findings import (
    BACTERIAL,
    NORMAL,
    Thresholds,
    bacterial_share,
    missing_classes,
    p_pneumonia,
)

UNKNOWN_KIND_THRESHOLD: Final = 0.5
# Where stretches end that reach 0 or 1, whose log-odds are infinite.
_NO_SURER: Final = 0.001


def choose_thresholds(labels: npt.ArrayLike, probabilities: npt.ArrayLike, copies: int = 1) -> Thresholds:
    """The thresholds for labels int [N] (indices into LABELS) and probabilities float32 [N, 3].

    Each maximises Youden's J = sensitivity + specificity - 1 (Youden 1950), which does not depend on how
    many images are ill. Accuracy would: 74 % of the training images are ill and 62.5 % of the test images,
    so a threshold of best training accuracy calls too many healthy children ill.

    J jumps from image to image, and the best of many jumps is partly luck. So every threshold with J within
    one standard error of the best counts as equally good (the one-standard-error rule of Breiman et al. 1984,
    applied to a threshold). These thresholds form stretches. The one chosen is the middle of the longest,
    both in log-odds: there, the images of another hospital may move the farthest before a side suffers.

    `copies` is the number of variations of each image in the arrays; they are no more evidence than one
    image. Where no kind of pneumonia is known, the threshold on it is UNKNOWN_KIND_THRESHOLD. Raises
    InvalidInput where a class is missing.
    """
    truth = np.asarray(labels, dtype=np.int64)
    if missing := missing_classes(truth.tolist()):
        raise InvalidInput(
            f"thresholds need validation images of every class; {', '.join(missing)} is missing."
        )
    pneumonia = _choose_threshold(p_pneumonia(probabilities), truth != NORMAL, copies)
    known = of_known_kind(truth)
    if not known.any():
        return Thresholds(pneumonia, UNKNOWN_KIND_THRESHOLD)
    share = bacterial_share(probabilities)[known]
    return Thresholds(pneumonia, _choose_threshold(share, truth[known] == BACTERIAL, copies))


def check_both_outcomes(labels: npt.ArrayLike) -> None:
    """Raise InvalidInput unless images with and without pneumonia are among these labels int [N]."""
    ill = np.asarray(labels) != NORMAL
    if ill.all() or not ill.any():
        raise InvalidInput(
            "recalibration needs images with and without pneumonia. Add images of the class that is missing."
        )


def choose_local_thresholds(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, sensitivity: float | None, earlier: Thresholds
) -> Thresholds:
    """The thresholds for local labels int [N], of findings.LABELS, and probabilities float32 [N, 3].

    With `sensitivity`, that of pneumonia is the largest with at least this sensitivity on these images
    (`threshold_at_sensitivity`). Else, and for bacterial or viral, they are chosen as `choose_thresholds`
    does. Where the images do not hold both kinds, the threshold of the kind stays the `earlier` one.
    """
    truth = np.asarray(labels, dtype=np.int64)
    ill, known = truth != NORMAL, of_known_kind(truth)
    total = p_pneumonia(probabilities)
    pneumonia = (
        _choose_threshold(total, ill, copies=1)
        if sensitivity is None
        else threshold_at_sensitivity(total, ill, sensitivity)
    )
    if len(np.unique(truth[known])) < 2:
        return Thresholds(pneumonia, earlier.bacterial)
    share = bacterial_share(probabilities)[known]
    return Thresholds(pneumonia, _choose_threshold(share, truth[known] == BACTERIAL, copies=1))


def threshold_at_sensitivity(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], sensitivity: float
) -> float:
    """The largest threshold at which at least this share of the `positive` [N] have `scores` [N] above it.

    Of the thresholds with the same findings on these images it is the middle one, so that no rounding of an
    engine moves an image across it.
    """
    wanted = int(np.ceil(sensitivity * positive.sum() - 1e-9))
    lowest = np.sort(scores[positive])[::-1][wanted - 1]
    below = scores[scores < lowest]
    return float(np.float32((float(lowest) + float(below.max(initial=0.0))) / 2))


def _choose_threshold(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int) -> float:
    stretches = np.clip(_stretches_near_the_best(scores, positive, copies), _NO_SURER, 1 - _NO_SURER)
    odds = logit(stretches)
    least, greatest = odds[np.argmax(odds[:, 1] - odds[:, 0])]
    return float(np.float32(expit((least + greatest) / 2)))


def _stretches_near_the_best(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int
) -> list[tuple[float, float]]:
    """The stretches of thresholds, from and to, with J within one standard error of its best."""
    distinct = np.unique(scores)
    # Every threshold in (edges[k], edges[k + 1]] calls the same images positive.
    edges = np.concatenate([[0.0], distinct, [1.0]])
    ill, well = np.sort(scores[positive]), np.sort(scores[~positive])
    missed = np.searchsorted(ill, np.append(distinct, np.inf), side="left")
    cleared = np.searchsorted(well, np.append(distinct, np.inf), side="left")
    youden = 1 - missed / len(ill) + cleared / len(well) - 1
    best = int(youden.argmax())
    variance = _binomial_variance(missed[best], len(ill)) + _binomial_variance(cleared[best], len(well))
    good = np.flatnonzero(youden >= youden[best] - np.sqrt(copies * variance) - 1e-12)
    stretches = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
    return [(float(edges[some[0]]), float(edges[some[-1] + 1])) for some in stretches]


def _binomial_variance(count: int, total: int) -> float:
    share = count / total
    return share * (1 - share) / total
