"""Decoded images that are stored elsewhere, and loaded a part at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np


class ImagePart(Protocol):
    """Some images, which can be loaded again and again."""

    def __len__(self) -> int:
        """How many they are, without loading them."""

    def load(self) -> np.ndarray:
        """The images uint8 [N, H, W]. Nobody changes them."""


@dataclass(frozen=True)
class LoadedPart:
    """Images uint8 [N, H, W] in memory."""

    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def load(self) -> np.ndarray:
        return self.images


@dataclass(frozen=True)
class ImageParts:
    """Images of `size` px in an order, of which a part or a batch is in memory at a time."""

    parts: tuple[ImagePart, ...]
    size: int

    @classmethod
    def of(cls, images: np.ndarray) -> Self:
        """Images uint8 [N, H, W] in memory."""
        return cls((LoadedPart(images),), images.shape[1])

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """All of these, one after the other."""
        return cls(tuple(part for images in several for part in images.parts), several[0].size)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def batches(self, size: int, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """The images that are `chosen`, bool [N], uint8 [size, H, W] each; the last batch may be smaller.

        A part is loaded only if one of its images is chosen.
        """
        return rebatched(self._chosen(chosen), size)

    def _chosen(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        start = 0
        for part in self.parts:
            of_part = chosen[start : start + len(part)]
            start += len(part)
            if of_part.all():
                yield part.load()
            elif of_part.any():
                yield part.load()[of_part]

    def first(self, count: int) -> np.ndarray:
        """Up to so many images uint8 [N, H, W] in memory."""
        return self.select(np.arange(len(self)) < count)

    def select(self, chosen: np.ndarray) -> np.ndarray:
        """The images uint8 [M, H, W] that are `chosen`, bool [N], in memory."""
        nothing = np.zeros((0, self.size, self.size), np.uint8)
        return next(self.batches(max(1, int(chosen.sum())), chosen), nothing)


def rebatched(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of `size` rows, the last one smaller. It holds a batch and a part."""
    waiting: list[np.ndarray] = []
    missing = size
    for part in parts:
        while len(part) >= missing:
            yield _joined([*waiting, part[:missing]])
            part, waiting, missing = part[missing:], [], size
        if len(part):
            waiting.append(part)
            missing -= len(part)
    if waiting:
        yield _joined(waiting)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
