"""Knowing what it does not know: how unlike the training images an image is, and whether that is too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

# An age in months, weeks or days comes out a little less than the year it stands for: 52 weeks.
AGE_ROUNDING_YEARS: Final = 0.05


@dataclass(frozen=True)
class Domain:
    """What scoring goes by: the largest domain score that is still in the domain, and the ages in years of
    the youngest and the oldest training patient, None where they are not known."""

    threshold: float
    ages_years: tuple[float, float] | None = None


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
