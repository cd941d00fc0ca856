"""Drift: how far the scores of a run are from those of earlier runs, by a population stability index."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Of p_pneumonia, each a tenth of 0 to 1.
BINS: Final = 10
# The 99.9 % quantile of chi-squared with BINS - 1 degrees of freedom.
_CHI_SQUARED: Final = 27.88
# An empty bin has no logarithm: each counts so many images more.
_PRIOR: Final = 0.5


@dataclass(frozen=True)
class Drift:
    """The population stability index of the scores of `images` images against those `of` so many before."""

    index: float
    images: int
    of: int

    @property
    def by_chance(self) -> float:
        """The index that so few images exceed once in a thousand nights although nothing has changed.

        Without a change, index / (1 / images + 1 / of) is nearly chi-squared (Yurdakul and Naranjo, Journal
        of Risk Model Validation 14, 2020).
        """
        return _CHI_SQUARED * (1 / self.images + 1 / self.of)


def measure_drift(now: Sequence[int], before: Sequence[int]) -> Drift | None:
    """The drift between two histograms of p_pneumonia with BINS bins; None where one has no image."""
    images, of = sum(now), sum(before)
    if not images or not of:
        return None
    index = sum((a - b) * math.log(a / b) for a, b in zip(_shares(now), _shares(before), strict=True))
    return Drift(round(index, 4), images, of)


def _shares(histogram: Sequence[int]) -> list[float]:
    total = sum(histogram) + _PRIOR * BINS
    return [(number + _PRIOR) / total for number in histogram]
