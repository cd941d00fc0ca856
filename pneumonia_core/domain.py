"""The training domain of a network, and the rule that decides whether an image is in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumonia_core.errors import InvalidInput

# An age in weeks or days comes out slightly under the completed year: 52 weeks are 0.997 years.
AGE_ROUNDING_YEARS: Final = 0.05


@dataclass(frozen=True)
class Domain:
    """The largest domain score in the domain, and the ages of the training patients.

    `ages_years` are the ages of the youngest and the oldest in completed years, None where they are unknown.
    """

    threshold: float
    ages_years: tuple[float, float] | None = None


def in_domain(domain: Domain, scores: np.ndarray, ages_years: Sequence[float | None]) -> np.ndarray:
    """Which images are in the domain, bool [N], by their domain scores [N] and patients' ages in years.

    An unknown age (None) does not exclude an image.
    """
    familiar = np.asarray(scores <= domain.threshold)
    return familiar & np.array([not _is_outside_age(domain, age) for age in ages_years], bool)


def _is_outside_age(domain: Domain, age: float | None) -> bool:
    """Whether an age is outside the range, whose ends are completed years: five may be nearly six."""
    if age is None or domain.ages_years is None:
        return False
    youngest, oldest = domain.ages_years
    return not youngest - AGE_ROUNDING_YEARS <= age < oldest + 1 - AGE_ROUNDING_YEARS / 10


def parse_ages(text: str) -> tuple[float, float]:
    """Ages of the youngest and the oldest patient from `MIN,MAX` in completed years. Raises InvalidInput."""
    try:
        youngest, oldest = (float(part) for part in text.split(","))
    except ValueError:
        youngest, oldest = 0.0, -1.0
    if not 0 <= youngest <= oldest < math.inf:
        raise InvalidInput(
            f"the ages {text!r} are not a range. Give the least and the greatest in years: 1,5."
        )
    return youngest, oldest
