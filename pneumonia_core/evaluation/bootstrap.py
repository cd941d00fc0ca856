"""Bootstrap over patients: the resamples, and the interval that they give a measure.

A percentile interval fails at the edge: a share of 1 is 1 in every resample, and one just below it varies too
little. So shares and areas under curves have the exact interval of so many trials as their patients are
worth: `estimate` with `effective_patients` or `effective_pairs`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from pneumonia_core.evaluation.document import BootstrapFacts, Measure

Floats = npt.NDArray[np.float64]
LEVEL: Final = 0.95
TAIL: Final = (1 - LEVEL) / 2
# With so many patients judged wrong (or right, if that is rarer), the variance over resamples counts as much
# as the number of patients. With fewer than two, an interval could move away from 1 as the last mistake goes.
PRIOR_PATIENTS: Final = 2.0
# Weights to a prevalence leave a rounding error.
_ROUNDING: Final = 1e-9
BLOCK_CELLS: Final = 2_000_000  # resamples x images in memory at a time


@dataclass(frozen=True)
class Estimate:
    """The value of a measure with its 95 % interval from `low` to `high`; each None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    def as_json(self) -> Measure:
        return {"value": self.value, "low": self.low, "high": self.high}


def patient_resamples(
    truth: npt.NDArray[np.int64], patient_index: npt.NDArray[np.int64], resamples: int, seed: int
) -> Iterator[tuple[Floats, int]]:
    """Blocks of weights float64 [R, N], the times each image was drawn, and the number of skipped resamples.

    The first block has one row, the data themselves. In the others, patients are drawn with replacement, each
    with all images, because the images of a patient are not independent. A resample without a class that the
    data have is skipped. If all images are of one patient, every resample is skipped: it would say nothing
    about other patients.
    """
    rng = np.random.default_rng(seed)
    patients = int(patient_index.max()) + 1
    member = (truth[:, None] == np.unique(truth)).astype(np.float64)
    yield np.ones((1, len(truth))), 0
    if patients == 1:
        yield np.ones((0, len(truth))), resamples
        return
    rows = max(1, BLOCK_CELLS // len(truth))
    for start in range(0, resamples, rows):
        drawn = rng.multinomial(patients, np.full(patients, 1 / patients), size=min(rows, resamples - start))
        weights = drawn[:, patient_index].astype(np.float64)
        complete = (weights @ member > 0).all(axis=1)
        yield weights[complete], int((~complete).sum())


def bootstrap_facts(resamples: int, skipped: int, seed: int) -> BootstrapFacts:
    """What a document says of its `resamples`, of which `skipped` lacked a class."""
    return {
        "unit": "patient",
        "level": LEVEL,
        "resamples": resamples,
        "used": resamples - skipped,
        "skipped": skipped,
        "seed": seed,
    }


def estimate(values: Floats, patients: float | None = None) -> Estimate:
    """The value (row 0) with its 95 % interval from the other rows.

    Without `patients` that is the percentile interval (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). For a share or an area under a curve, pass the number of patients that it is
    worth at 0 and 1 (`effective_patients`, `effective_pairs`): it then has the interval of
    `_limits_of_share`.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    if not len(resampled) or not np.isfinite(values[0]):
        low = high = np.nan
    elif patients is None:
        low, high = np.quantile(resampled, [TAIL, 1 - TAIL])
    else:
        low, high = _limits_of_share(float(values[0]), float(resampled.var()), patients)
    return Estimate(number(values[0]), number(low), number(high))


def _limits_of_share(share: float, variance: float, patients: float) -> tuple[float, float]:
    """The exact interval (Clopper and Pearson, Biometrika 26, 1934) for an effective number of trials.

    Korn and Graubard (Survey Methodology 24, 1998) take share * (1 - share) / variance for that number. Near
    0 and 1 the variance is hardly known, and there the number tends to `patients`: a weighted mean of the two
    reciprocals, by the expected number of patients of the rarer outcome and PRIOR_PATIENTS. The share of the
    images of a single patient has no interval unless it is 0 or 1.
    """
    rare = min(share, 1 - share)
    if patients <= 0 or (patients <= 1 and rare > _ROUNDING):
        return np.nan, np.nan
    trials = patients
    if rare > _ROUNDING:
        seen = patients * rare
        reciprocal = (seen * variance / (share * (1 - share)) + PRIOR_PATIENTS / patients) / (
            seen + PRIOR_PATIENTS
        )
        trials = 1 / reciprocal
    right = trials * share
    low = 0.0 if share < _ROUNDING else float(betaincinv(right, trials - right + 1, TAIL))
    high = 1.0 if share > 1 - _ROUNDING else float(betaincinv(right + 1, trials - right, 1 - TAIL))
    return low, high


def effective_patients(patients: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """The number of equal patients that the images of these `patients` [N] are worth.

    The images of a patient count as one opinion, which weighs as much as all of them: (sum w)^2 / sum w^2
    over the patients (Kish, Survey Sampling, 1965). `weights` [N] of the images are 1 by default.
    """
    keys = np.asarray(patients)
    if not len(keys):
        return 0.0
    of = np.unique(keys, return_inverse=True)[1].reshape(-1)
    each = np.bincount(of, weights=None if weights is None else np.asarray(weights, np.float64))
    return float(each.sum() ** 2 / np.square(each).sum())


def effective_pairs(positive: float, negative: float) -> float:
    """The number of trials that an AUROC near 0 or 1 over so many positive and negative patients is worth.

    That is A (1 - A) / variance as A approaches 1, with the variance of Newcombe (Statistics in Medicine 25,
    2006, method 5), which symmetrises that of Hanley and McNeil (Radiology 143, 1982).
    """
    return 4 * positive * negative / (positive + negative + 2) if positive and negative else 0.0


def ratio_limits(numerator: Estimate, denominator: Estimate) -> tuple[float, float]:
    """The 95 % limits of a ratio of two independent shares, from the intervals of the two.

    (MOVER-R: Donner and Zou, Statistical Methods in Medical Research 21, 2012.) NaN where an interval is
    missing, infinity where the denominator may be 0.
    """
    (a, a_low, a_high), (b, b_low, b_high) = _limits(numerator), _limits(denominator)
    product, least, greatest = a * b, a_low * (2 * a - a_low), a_high * (2 * a - a_high)
    # Rounding may leave a root of less than nothing.
    below = product + np.sqrt(np.maximum(0.0, product**2 - least * b_high * (2 * b - b_high)))
    above = product + np.sqrt(np.maximum(0.0, product**2 - greatest * b_low * (2 * b - b_low)))
    low = least / below if below != 0 else 0.0
    high = above / (b_low * (2 * b - b_low)) if b_low != 0 else np.inf
    return float(low), float(high)


def _limits(estimated: Estimate) -> tuple[float, float, float]:
    values = (estimated.value, estimated.low, estimated.high)
    value, low, high = (np.nan if each is None else each for each in values)
    return value, low, high


def number(value: float) -> float | None:
    """The value as JSON can hold it: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
