"""The arithmetic of the comparison: from seconds of single runs to medians, spreads and ratios."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """How many images the two runs of a pair have. Their difference is free of start and end."""

    whole: int
    part: int


@dataclass(frozen=True)
class Ceilings:
    """Images per second that the machine decodes alone, and that the engine computes alone."""

    decode_images_per_s: float
    engine_images_per_s: float

    @property
    def both(self) -> float:
        """The rate where every core decodes and computes in turn and never waits."""
        return 1 / (1 / self.decode_images_per_s + 1 / self.engine_images_per_s)


@dataclass(frozen=True)
class Difference:
    """Between probabilities and those of the float32 Keras model: |Δp| over images and classes."""

    largest: float
    mean: float

    @classmethod
    def of(cls, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Self:
        """Over the images that are in both. Raises ValueError where none is."""
        both = sorted(found.keys() & expected.keys())
        if not both:
            raise ValueError("no image was scored by both")
        apart = np.abs(np.stack([found[name] for name in both]) - np.stack([expected[name] for name in both]))
        return cls(float(apart.max()), float(apart.mean()))


@dataclass(frozen=True)
class Measurement:
    """One contestant in one pair: the seconds of both sizes, and what the larger run left.

    The last three are of `pneumonia score` alone; `limit` says what limited it.
    """

    contestant: str
    whole_s: float
    part_s: float
    rows: int
    peak_pss_bytes: int
    difference: Difference
    engine: str | None = None
    ceilings: Ceilings | None = None
    limit: str | None = None

    def whole_images_per_s(self, sizes: Sizes) -> float:
        return sizes.whole / self.whole_s

    def steady_images_per_s(self, sizes: Sizes) -> float:
        """NaN where the larger run was not the longer one: another process disturbed it."""
        seconds = self.whole_s - self.part_s
        return (sizes.whole - sizes.part) / seconds if seconds > 0 else math.nan

    def efficiency(self, sizes: Sizes) -> float | None:
        if self.ceilings is None:
            return None
        return self.steady_images_per_s(sizes) / self.ceilings.both


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class CeilingSpreads:
    decode_images_per_s: Spread
    engine_images_per_s: Spread

    @classmethod
    def of(cls, measured: Sequence[Ceilings]) -> Self:
        return cls(
            Spread.of([each.decode_images_per_s for each in measured]),
            Spread.of([each.engine_images_per_s for each in measured]),
        )


@dataclass(frozen=True)
class Summary:
    """One contestant over all pairs. The difference and the memory are the largest of all."""

    contestant: str
    whole_images_per_s: Spread
    steady_images_per_s: Spread
    rows: tuple[int, ...]
    peak_pss_bytes: int
    difference: Difference
    engines: tuple[str, ...]
    limits: tuple[str, ...]
    efficiency: Spread | None
    ceilings: CeilingSpreads | None

    @classmethod
    def of(cls, measured: Sequence[Measurement], sizes: Sizes) -> Self:
        ceilings = [each.ceilings for each in measured if each.ceilings is not None]
        efficiencies = [value for each in measured if (value := each.efficiency(sizes)) is not None]
        return cls(
            contestant=measured[0].contestant,
            whole_images_per_s=Spread.of([each.whole_images_per_s(sizes) for each in measured]),
            steady_images_per_s=Spread.of([each.steady_images_per_s(sizes) for each in measured]),
            rows=tuple(each.rows for each in measured),
            peak_pss_bytes=max(each.peak_pss_bytes for each in measured),
            difference=max((each.difference for each in measured), key=lambda each: each.largest),
            engines=tuple(sorted({each.engine for each in measured if each.engine is not None})),
            limits=tuple(each.limit for each in measured if each.limit is not None),
            efficiency=Spread.of(efficiencies) if efficiencies else None,
            ceilings=CeilingSpreads.of(ceilings) if ceilings else None,
        )


@dataclass(frozen=True)
class Ratio:
    """How many times as fast `ours` is as `peer`: the spread of the ratios of the single pairs."""

    ours: str
    peer: str
    whole: Spread
    steady: Spread

    @classmethod
    def of(cls, ours: Sequence[Measurement], peer: Sequence[Measurement], sizes: Sizes) -> Self:
        """Both in the order of the pairs."""
        pairs = list(zip(ours, peer, strict=True))
        return cls(
            ours[0].contestant,
            peer[0].contestant,
            Spread.of([a.whole_images_per_s(sizes) / b.whole_images_per_s(sizes) for a, b in pairs]),
            Spread.of([a.steady_images_per_s(sizes) / b.steady_images_per_s(sizes) for a, b in pairs]),
        )
