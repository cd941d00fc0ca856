"""The domain guard, an out-of-distribution (OOD) detector: how far an image is from the training images."""

from dataclasses import dataclass
from typing import Final

import numpy as np

# Number of training images that a guard is fitted on.
GUARD_IMAGES: Final = 2000
FLAGGED_SHARE: Final = 0.035
# Without shrinkage, directions in which the training images hardly vary are magnified without bound, and with
# them the rounding error of a bfloat16 engine.
LEAST_SHRINKAGE: Final = 0.01
# Larger deviations carry no more information, and their squares would overflow float16.
LARGEST_DEVIATION: Final = 100.0


@dataclass(frozen=True)
class DomainGuard:
    """A normal distribution fitted to the features of training images.

    `mean` and `variance` are float32 [D]; `whitening` float32 [D, D] whitens the standardised features.
    """

    mean: np.ndarray
    variance: np.ndarray
    whitening: np.ndarray


def fit_guard(features: np.ndarray) -> DomainGuard:
    """The guard for features [N, D] of training images.

    The score is a Mahalanobis distance (Lee et al. 2018). The covariance is shrunk so that few images suffice
    (Ledoit and Wolf 2004).
    """
    # Only fitting needs scikit-learn, whose import takes a second.
    from sklearn.covariance import ledoit_wolf_shrinkage

    features = features.astype(np.float64)
    deviation = features.std(axis=0)
    # A feature that is constant on the training images still counts, but cannot decide alone.
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
    """The domain scores float32 [N] of features [N, D], as the exported model computes them.

    A score is the root mean square of the whitened features: about 1 for images like the training images,
    higher for others.
    """
    white = (features - guard.mean) / np.sqrt(guard.variance) @ guard.whitening
    squares = np.square(np.clip(white, -LARGEST_DEVIATION, LARGEST_DEVIATION))
    return np.sqrt(squares.mean(axis=1)).astype(np.float32)


def choose_threshold(scores: np.ndarray) -> float:
    """The threshold that at most FLAGGED_SHARE of the domain scores [N] of validation images exceed.

    It lies midway between two scores, or 5 % above the highest where so few images allow no flag. An engine's
    rounding error therefore moves no image across it.
    """
    ordered = np.sort(scores)[::-1].astype(np.float64)
    flagged = int(FLAGGED_SHARE * len(ordered))
    if flagged == 0:
        return float(ordered[0] * 1.05)
    return float((ordered[flagged - 1] + ordered[flagged]) / 2)
