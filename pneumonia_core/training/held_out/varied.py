"""Variations of images that are loaded a part at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np

from pneumonia_core.training.augment import VARIED_AT_ONCE, Augmentation, Augmenter, Variations
from pneumonia_core.training.held_out.images import ImageParts, rebatched


@dataclass(frozen=True)
class VariedImages:
    """A variation of each of some images, made whenever it is asked for; the same each time."""

    images: ImageParts
    variations: Variations

    @classmethod
    def draw(cls, images: ImageParts, strength: Augmentation, rng: np.random.Generator) -> Self:
        """Random variations: those that `vary` gives all images at once."""
        return cls(images, Variations.draw(rng, len(images), images.size, strength))

    def batches(self, size: int, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """As `ImageParts.batches`."""
        return rebatched(self._chosen(chosen), size)

    def _chosen(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        """The chosen images of each group that has any. Groups are varied whole, as they are in `vary`."""
        augment = Augmenter(self.images.size)
        needed = [some for some in self.variations.groups() if chosen[some].any()]
        whole = np.zeros(len(chosen), bool)
        for some in needed:
            whole[some] = True
        batches = self.images.batches(VARIED_AT_ONCE, whole)
        for some, images in zip(needed, batches, strict=True):
            yield self.variations.select(some).apply(images, augment)[chosen[some]]
