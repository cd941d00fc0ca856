"""Knowing what it does not know: how unlike the training images an image is, and whether that is too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

# Training images that a guard is fitted on.
GUARD_IMAGES: Final = 2000
FLAGGED_SHARE: Final = 0.035
# Ages of the patients of the data sets that are known by name, in years: Kermany, Zhang, Goldbaum 2018,
# 'pediatric patients of one to five years old'.
KNOWN_AGES_YEARS: Final = {"kermany": (1.0, 5.0)}
# An age in months, weeks or days comes out a little less than the year it stands for: 52 weeks.
AGE_ROUNDING_YEARS: Final = 0.05
# Directions in which the training images hardly differ would be magnified without end, and with them the
# rounding of a bfloat16 engine.
LEAST_SHRINKAGE: Final = 0.01
# Beyond this many standard deviations more says nothing, and squares would leave the range of float16.
LARGEST_DEVIATION: Final = 100.0


@dataclass(frozen=True)
class Domain:
    """What scoring goes by: the largest domain score that is still in the domain, and the ages in years of
    the youngest and the oldest training patient, None where they are not known."""

    threshold: float
    ages_years: tuple[float, float] | None = None


@dataclass(frozen=True)
class Guard:
    """A normal distribution of the features of images like the training images: mean and variance
    float32 [D], and a matrix float32 [D, D] that makes the standardised features white."""

    mean: np.ndarray
    variance: np.ndarray
    whitening: np.ndarray


def fit_guard(features: np.ndarray) -> Guard:
    """The guard of features [N, D] of training images.

    The score is a Mahalanobis distance (Lee et al. 2018), with a covariance that is shrunk so that few
    images suffice (Ledoit and Wolf 2004).
    """
    # Scoring knows this module too, and needs none of it: importing it takes a second.
    from sklearn.covariance import ledoit_wolf_shrinkage

    features = features.astype(np.float64)
    deviation = features.std(axis=0)
    # A feature that no training image shows counts when an image does, but does not decide alone.
    deviation = np.maximum(deviation, 0.01 * deviation.mean() + 1e-6)
    standard = (features - features.mean(axis=0)) / deviation
    shrinkage = max(float(ledoit_wolf_shrinkage(standard, assume_centered=True)), LEAST_SHRINKAGE)
    covariance = standard.T @ standard / len(standard)
    scale = np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance)
    spread = (1 - shrinkage) * np.maximum(values, 0) + shrinkage * scale
    return Guard(
        features.mean(axis=0).astype(np.float32),
        np.square(deviation).astype(np.float32),
        (vectors / np.sqrt(np.maximum(spread, 1e-12))).astype(np.float32),
    )


def domain_scores(guard: Guard, features: np.ndarray) -> np.ndarray:
    """The domain scores float32 [N] of features [N, D], as the exported model computes them: the root mean
    square of the whitened features, about 1 for images like the training images, higher for others."""
    white = (features - guard.mean) / np.sqrt(guard.variance) @ guard.whitening
    squares = np.square(np.clip(white, -LARGEST_DEVIATION, LARGEST_DEVIATION))
    return np.sqrt(squares.mean(axis=1)).astype(np.float32)


def choose_threshold(scores: np.ndarray) -> float:
    """The threshold that at most FLAGGED_SHARE of these domain scores [N] of validation images exceed.

    It lies between two scores, or a little above all of so few, so that an engine's rounding moves no image.
    """
    ordered = np.sort(scores)[::-1].astype(np.float64)
    flagged = int(FLAGGED_SHARE * len(ordered))
    if flagged == 0:
        return float(ordered[0] * 1.05)
    return float((ordered[flagged - 1] + ordered[flagged]) / 2)


def in_domain(domain: Domain, scores: np.ndarray, ages_years: Sequence[float | None]) -> np.ndarray:
    """Which images bool [N] are like the training data, by their domain scores [N] and patients' ages.

    An age that is not known speaks for nothing.
    """
    familiar = np.asarray(scores <= domain.threshold)
    return familiar & np.array([not _is_foreign_age(domain, age) for age in ages_years], bool)


def _is_foreign_age(domain: Domain, age: float | None) -> bool:
    """Ages of a data set are in completed years: the oldest of five may be nearly six."""
    if age is None or domain.ages_years is None:
        return False
    youngest, oldest = domain.ages_years
    return not youngest - AGE_ROUNDING_YEARS <= age < oldest + 1 - AGE_ROUNDING_YEARS / 10
