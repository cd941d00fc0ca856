"""The group of each image by one of its properties: a column of the labels, or the size of its source."""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from pneumonia_core.errors import InvalidInput

UNKNOWN: Final = "unknown"
MAX_SIZES: Final = 3
MAX_GROUPS: Final = 30
# Infants, pre-school children, school children, and three parts of adult life.
AGE_LIMITS_YEARS: Final = (0, 1, 5, 18, 40, 65)
_AGE_NAME: Final = re.compile(r"(^|[^a-z])age($|[^a-z])")


def groups_of(factor: str, values: Sequence[object]) -> list[str]:
    """The group of each image by its value of a factor, `unknown` for None and empty text.

    Numbers of a factor named age are years and give the bands of AGE_LIMITS_YEARS. Raises InvalidInput for
    more than MAX_GROUPS groups.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    ages = [_number(text) for text in texts] if _AGE_NAME.search(factor.lower()) else []
    if any(age is not None for age in ages):
        return [_age_band(age) for age in ages]
    groups = [text or UNKNOWN for text in texts]
    if (count := len(set(groups))) > MAX_GROUPS:
        raise InvalidInput(
            f"{factor!r} has {count:,} values among these images; groups are made of up to {MAX_GROUPS}. "
            "Group them in the labels table first."
        )
    return groups


def in_order(groups: Sequence[str]) -> list[str]:
    """The distinct groups, those that begin with a number first and by it, `unknown` last."""
    return sorted(set(groups), key=lambda group: (group == UNKNOWN, _leading_number(group), group))


def size_groups(widths: Sequence[int | None], heights: Sequence[int | None]) -> list[str]:
    """The group of each image by the size of its source, for sizes in pixels, None where unknown.

    Where there are at most MAX_SIZES sizes, the group is the size itself. Else the images are cut into thirds
    by number of pixels; there are fewer groups where equal sizes fill more than a third.
    """
    sizes = list(zip(widths, heights, strict=True))
    distinct = {size for size in sizes if None not in size}
    if len(distinct) <= MAX_SIZES:
        return [f"{width} × {height}" if width and height else UNKNOWN for width, height in sizes]
    pixels = np.array([width * height if width and height else np.nan for width, height in sizes])
    limits = np.unique(np.nanquantile(pixels, [1 / 3, 2 / 3, 1], method="inverted_cdf"))
    names = [
        f"{number} of {len(limits)}, up to {limit / 1e6:.3g} megapixels"
        for number, limit in enumerate(limits, start=1)
    ]
    return [UNKNOWN if np.isnan(count) else names[int(np.searchsorted(limits, count))] for count in pixels]


def _age_band(age: float | None) -> str:
    if age is None or not 0 <= age < 150:
        return UNKNOWN
    band = int(np.searchsorted(AGE_LIMITS_YEARS, age, side="right"))
    low = AGE_LIMITS_YEARS[band - 1]
    if band == len(AGE_LIMITS_YEARS):
        return f"{low} years and more"
    return f"{low} to under {AGE_LIMITS_YEARS[band]} years"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _leading_number(group: str) -> float:
    found = re.match(r"\d+(\.\d+)?", group)
    return float(found[0]) if found else np.inf
