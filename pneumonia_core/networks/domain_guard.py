"""Knowing what it does not know: how unlike the training images an image is, and whether that is too much."""

from dataclasses import dataclass
from typing import Final

import numpy as np

# Training images that a guard is fitted on.
GUARD_IMAGES: Final = 2000
FLAGGED_SHARE: Final = 0.035
# Directions in which the training images hardly differ would be magnified without end, and with them the
# rounding of a bfloat16 engine.
LEAST_SHRINKAGE: Final = 0.01
# Beyond this many standard deviations more says nothing, and squares would leave the range of float16.
LARGEST_DEVIATION: Final = 100.0


@dataclass(frozen=True)
class DomainGuard:
    """A normal distribution of the features of images like the training images: mean and variance
    float32 [D], and a matrix float32 [D, D] that makes the standardised features white."""

    mean: np.ndarray
    variance: np.ndarray
    whitening: np.ndarray


def fit_guard(features: np.ndarray) -> DomainGuard:
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
    return DomainGuard(
        features.mean(axis=0).astype(np.float32),
        np.square(deviation).astype(np.float32),
        (vectors / np.sqrt(np.maximum(spread, 1e-12))).astype(np.float32),
    )


def domain_scores(guard: DomainGuard, features: np.ndarray) -> np.ndarray:
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
