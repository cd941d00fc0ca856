"""Drift: how far the scores of a run are from those of earlier runs, by a population stability index."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Of p_pneumonia, each a tenth of 0 to 1.
BINS: Final = 10
# The 99.9 % quantile of chi-squared with BINS - 1 degrees of freedom.
_CHI_SQUARED: Final = 27.88
# So many images are added to each histogram, distributed as both together.
_PRIOR_IMAGES: Final = 5.0


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
    pooled = [(a + b) / (images + of) for a, b in zip(now, before, strict=True)]
    pairs = zip(_shares(now, pooled), _shares(before, pooled), pooled, strict=True)
    index = sum((a - b) * math.log(a / b) for a, b, both in pairs if both)
    return Drift(round(index, 4), images, of)


def _shares(histogram: Sequence[int], pooled: Sequence[float]) -> list[float]:
    """The shares of the bins, drawn a little towards those of both histograms together.

    An empty bin has no logarithm. Drawn towards equal shares, few images beside many would differ in every
    bin that is nearly empty.
    """
    total = sum(histogram) + _PRIOR_IMAGES
    return [(number + _PRIOR_IMAGES * share) / total for number, share in zip(histogram, pooled, strict=True)]
