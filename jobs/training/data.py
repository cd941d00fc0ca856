"""The images of a training, decoded into the object store: those to train on and those to validate on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.training.images import LabelledImages, decode_labelled
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.storage.location import Location
from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """Decoded training and validation images."""

    training: LabelledImages
    validation: LabelledImages

    @property
    def digest(self) -> str:
        """A SHA-256 over all images with label and patient, whatever their order and location."""
        return hashlib.sha256(f"{self.training.digest} {self.validation.digest}".encode()).hexdigest()


def decode_training_data(
    training: Sequence[LabelledImage],
    validation: Sequence[LabelledImage],
    recipe: Recipe,
    cpus: float,
    journals: Location,
) -> TrainingData:
    """Decode both sets in Ray tasks of `cpus` CPUs each, the training images in random order.

    Training images whose content is in validation are left out, see `decode_labelled`. Crash journals of the
    decoding go to `journals`.
    """
    order = np.random.default_rng(recipe.seed).permutation(len(training))
    shuffled = [training[index] for index in order]
    validated = decode_labelled(validation, recipe.image_size, cpus, "validation", journals)
    trained = decode_labelled(shuffled, recipe.image_size, cpus, "training", journals, validated.contents)
    return TrainingData(trained, validated)
