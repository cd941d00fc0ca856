"""Measures of calibration: how well probabilities agree with outcomes.

They take weights float64 [R, N], one row for each bootstrap resample (the times it drew an image), and give
float64 [R, ...].
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from pneumonia_core.evaluation.bootstrap import Floats

RELIABILITY_BINS: Final = 10
PROBABILITY_FLOOR: Final = 1e-6  # keeps the logit of a float32 probability of 0 or 1 finite


@dataclass(frozen=True)
class ReliabilityCurve:
    """The bins of equal width, each array float64 [R, 10].

    `predicted` is the mean probability in a bin, `observed` the share of positives; both are NaN where a bin
    is empty.
    """

    count: Floats
    predicted: Floats
    observed: Floats


def brier(probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """The mean squared difference between probability and outcome (Brier 1950), [R]."""
    return weights @ np.square(probability - positive) / weights.sum(axis=1)


def reliability(probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> ReliabilityCurve:
    """The reliability curve of probabilities [N] and outcomes bool [N]."""
    bins = np.minimum((probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    member = (bins[:, None] == np.arange(RELIABILITY_BINS)).astype(np.float64)
    count = weights @ member
    with np.errstate(invalid="ignore"):
        predicted = weights @ (member * probability[:, None]) / count
        observed = weights @ (member * positive[:, None]) / count
    return ReliabilityCurve(count, predicted, observed)


def expected_calibration_error(curve: ReliabilityCurve) -> Floats:
    """The mean of |observed - predicted| over the bins, weighted by count, [R].

    (Naeini, Cooper and Hauskrecht, AAAI 2015; for the positive class, not the most likely one.)
    """
    gap = np.nan_to_num(np.abs(curve.observed - curve.predicted))
    return (gap * curve.count).sum(axis=1) / curve.count.sum(axis=1)


def calibration_line(
    probability: Floats, positive: npt.NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Slope and intercept, each [R], of a logistic regression of the outcome on the probability's logit.

    A calibrated model has slope 1 and intercept 0; a slope below 1 means probabilities too far from one half
    (Cox 1958; Van Calster et al., BMC Medicine 2019, whose own intercept is of a line with slope 1). NaN
    under complete separation, where the slope has no finite maximum. Newton's method on all resamples at
    once.
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
    """Whether the outcomes overlap in `x` [N], for each row of weights.

    Under complete separation the slope has no finite maximum. Once it is so large that every probability is
    rounded to 0 or 1, a zero step would look like convergence.
    """
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
