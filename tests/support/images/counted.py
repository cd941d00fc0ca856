"""Images in parts that are copied when they are loaded, and a count of those that somebody still has."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pneumonia_core.training.held_out.images import ImageParts


@dataclass
class Held:
    """How many loaded images are alive, and how many were at once at most."""

    now: int = 0
    most: int = 0

    def change(self, images: int) -> None:
        self.now += images
        self.most = max(self.most, self.now)


@dataclass(frozen=True)
class CountedPart:
    images: np.ndarray
    held: Held = field(compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def load(self) -> np.ndarray:
        loaded = self.images.copy()
        self.held.change(len(loaded))
        weakref.finalize(loaded, self.held.change, -len(loaded))
        return loaded


def counted_parts(images: np.ndarray, sizes: Sequence[int]) -> tuple[ImageParts, Held]:
    """The images uint8 [N, H, W] in parts of these sizes, again and again."""
    held, parts, start = Held(), [], 0
    while start < len(images):
        size = sizes[len(parts) % len(sizes)]
        parts.append(CountedPart(images[start : start + size], held))
        start += size
    return ImageParts(tuple(parts), images.shape[1]), held
