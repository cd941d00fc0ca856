"""Drift: how far the scores of a run are from those of earlier runs, by a population stability index."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from pneumonia_core.gates import Drift

# Of p_pneumonia, each a tenth of 0 to 1.
BINS: Final = 10
# An empty bin has no logarithm: so many images are added to each histogram, distributed as both together.
# Distributed equally, few images beside many would differ in every bin that is nearly empty.
_PRIOR_IMAGES: Final = 5.0
_DRAWS: Final = 5_000
_BY_CHANCE: Final = 0.999
# So many images differ by chance in no digit that is shown; more than 10^9 cannot be drawn.
_TOO_MANY_FOR_CHANCE: Final = 10**8


def measure_drift(now: Sequence[int], before: Sequence[int]) -> Drift | None:
    """The drift between two histograms of p_pneumonia with BINS bins; None where one has no image."""
    images, of = sum(now), sum(before)
    if not images or not of:
        return None
    pooled = np.add(now, before)
    index = float(_index(np.asarray([now]), pooled)[0])
    return Drift(round(index, 4), images, of, round(_index_by_chance(pooled, images), 4))


def _index_by_chance(pooled: np.ndarray, images: int) -> float:
    """The quantile of the index where chance alone has chosen which of all images are those of the run."""
    if pooled.sum() > _TOO_MANY_FOR_CHANCE:
        return 0.0
    draws = np.random.default_rng(0).multivariate_hypergeometric(pooled, images, _DRAWS, method="marginals")
    return float(np.quantile(_index(draws, pooled), _BY_CHANCE))


def _index(now: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """The indices [N] of histograms int [N, BINS] against the rest of all images, `pooled` int [BINS]."""
    pooled, now = pooled[pooled > 0], now[:, pooled > 0]
    prior = _PRIOR_IMAGES * pooled / pooled.sum()
    shares = (now + prior) / (now.sum(1, keepdims=True) + _PRIOR_IMAGES)
    before = pooled - now
    shares_before = (before + prior) / (before.sum(1, keepdims=True) + _PRIOR_IMAGES)
    return np.asarray(((shares - shares_before) * np.log(shares / shares_before)).sum(1))
