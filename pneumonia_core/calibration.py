"""Thresholds, chosen on validation; and how well probabilities agree with what was seen.

Measures take weights float64 [R, N], one row for each bootstrap resample (the times it drew an image),
and give float64 [R, ...].
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import bacterial_share, p_pneumonia
from pneumonia_core.labels import BACTERIAL, NORMAL, VIRAL

Floats = npt.NDArray[np.float64]

RELIABILITY_BINS: Final = 10
PROBABILITY_FLOOR: Final = 1e-6  # keeps the logit of a float32 probability of 0 or 1 finite


def choose_thresholds(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, copies: int = 1
) -> tuple[float, float]:
    """The thresholds (t1, t2) of the finding, chosen on validation: see findings.Thresholds.

    Each maximises Youden's J = sensitivity + specificity - 1 (Youden 1950), which does not depend on how
    many images are ill. Accuracy would: 74 % of the training images are ill and 62.5 % of the test images,
    so a threshold of best training accuracy calls too many healthy children ill.

    J jumps from image to image, and the best of many jumps is partly luck. So every threshold with J within one
    standard error of the best is as good as it (the one-standard-error rule of Breiman et al. 1984, applied to a
    threshold). Of those, the one nearest to the share of positives among these images is chosen, but off the edges, by
    a quarter, of the stretch of thresholds that it lies in: there a calibrated probability says that the image itself
    speaks for neither, which is where J is best. `copies` of each image are there, varied, which tell no more patients
    apart than one would. Raises InvalidInput where a class is missing.
    """
    truth = np.asarray(labels, dtype=np.int64)
    missing = [name for label, name in ((NORMAL, "normal"), (BACTERIAL, "bacterial"), (VIRAL, "viral"))
               if not (truth == label).any()]  # fmt: skip
    if missing:
        raise InvalidInput(
            f"thresholds need validation images of every class; {', '.join(missing)} is missing."
        )
    ill = truth != NORMAL
    t1 = _choose_threshold(p_pneumonia(probabilities), ill, copies)
    t2 = _choose_threshold(bacterial_share(probabilities)[ill], truth[ill] == BACTERIAL, copies)
    return t1, t2


def _choose_threshold(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int) -> float:
    share = positive.mean()
    least, greatest = min(
        _as_good_as_the_best(scores, positive, copies),
        key=lambda stretch: abs(share - np.clip(share, *stretch)),
    )
    quarter = (greatest - least) / 4
    return float(np.float32(np.clip(share, least + quarter, greatest - quarter)))


def _as_good_as_the_best(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], copies: int
) -> list[tuple[float, float]]:
    """The stretches of thresholds, from and to, with J within one standard error of its best."""
    distinct = np.unique(scores)
    # A threshold in (edges[k], edges[k + 1]] calls the same images positive wherever it lies there.
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


def prior_corrected(probability: npt.ArrayLike, assumed: float, prevalence: float) -> Floats:
    """The probabilities of the positive class where its prevalence is `prevalence` instead of `assumed`.

    The odds are multiplied by the ratio of the prior odds, which is Bayes' rule with the same images seen
    in each class (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002, eq. 2.4).
    """
    for name, value in (("assumed", assumed), ("wanted", prevalence)):
        if not 0 < value < 1:
            raise InvalidInput(
                f"the {name} prevalence is {value:g}; it must lie between 0 and 1, both excluded."
            )
    p = np.asarray(probability, dtype=np.float64)
    ill = p * prevalence / assumed
    well = (1 - p) * (1 - prevalence) / (1 - assumed)
    return ill / (ill + well)


def brier(probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """The mean squared difference between probability and outcome (Brier 1950), [R]."""
    return weights @ np.square(probability - positive) / weights.sum(axis=1)


def reliability(probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """The reliability curve in ten bins of equal width: `count`, `predicted` and `observed`, each [R, 10].

    `predicted` is the mean probability, `observed` the share of positives; NaN where a bin is empty.
    """
    bins = np.minimum((probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    member = (bins[:, None] == np.arange(RELIABILITY_BINS)).astype(np.float64)
    count = weights @ member
    with np.errstate(invalid="ignore"):
        predicted = weights @ (member * probability[:, None]) / count
        observed = weights @ (member * positive[:, None]) / count
    return {"count": count, "predicted": predicted, "observed": observed}


def expected_calibration_error(curve: dict[str, Floats]) -> Floats:
    """The mean of |observed - predicted| over the bins of `reliability`, weighted by count, [R].

    (Naeini, Cooper and Hauskrecht, AAAI 2015; for the positive class, not the most likely one.)
    """
    gap = np.nan_to_num(np.abs(curve["observed"] - curve["predicted"]))
    return (gap * curve["count"]).sum(axis=1) / curve["count"].sum(axis=1)


def calibration_line(
    probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Slope and intercept, each [R], of a logistic regression of the outcome on the probability's logit.

    A calibrated model has slope 1 and intercept 0; a slope below 1 means probabilities too far from one half
    (Cox 1958; Van Calster et al., BMC Medicine 2019, whose own intercept is of a line with slope 1). NaN where the
    outcomes can be told apart without error: no finite slope is likeliest then. Newton's method on all resamples at once.
    """
    raw = logit(np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))
    centre, spread = raw.mean(), raw.std() or 1.0
    x = (raw - centre) / spread
    design = np.stack([np.ones_like(x), x])
    products = np.stack([design[0], x, x * x]).T
    beta = np.zeros((len(weights), 2))
    finite = _overlap(x, positive, weights)
    settled = ~finite
    for _ in range(60):
        moving = np.flatnonzero(~settled)
        if len(moving) == 0:
            break
        some = weights[moving]
        fitted = expit(beta[moving] @ design)
        gradient = (some * (positive - fitted)) @ design.T
        step = _solve_2x2((some * (fitted * (1 - fitted))) @ products, gradient)
        beta[moving] += np.clip(step, -2, 2)  # a full step from far away overshoots
        settled[moving] = np.abs(step).max(axis=1) < 1e-9
    slope = beta[:, 1] / spread
    intercept = beta[:, 0] - slope * centre
    undefined = ~(settled & finite)
    slope[undefined], intercept[undefined] = np.nan, np.nan
    return slope, intercept


def _overlap(x: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> npt.NDArray[np.bool_]:
    """For each row of weights, whether neither outcome has all of the higher x [N]: else a slope grows without end, and
    where it has grown so far that every probability is rounded to 0 or 1, its next step may pass for none."""
    drawn = weights > 0
    ill, well = drawn & positive, drawn & ~positive
    lowest = [np.where(some, x, np.inf).min(axis=1) for some in (ill, well)]
    highest = [np.where(some, x, -np.inf).max(axis=1) for some in (ill, well)]
    overlap: npt.NDArray[np.bool_] = (lowest[0] < highest[1]) & (lowest[1] < highest[0])
    return overlap


def _solve_2x2(matrix: Floats, vector: Floats) -> Floats:
    """The solutions [R, 2] of symmetric systems given as (a, b, c) for [[a, b], [b, c]]; 2 where singular."""
    a, b, c = matrix.T
    determinant = a * c - b * b
    with np.errstate(invalid="ignore", divide="ignore"):
        solved = np.stack(
            [c * vector[:, 0] - b * vector[:, 1], a * vector[:, 1] - b * vector[:, 0]], axis=1
        ) / determinant[:, None]  # fmt: skip
    return np.nan_to_num(solved, nan=2.0, posinf=2.0, neginf=-2.0)
