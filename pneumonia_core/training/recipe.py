"""How a network is trained: every number of it, one frozen value that travels to the workers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import CLASSES
from pneumonia_core.networks.catalog import STAGES

REFERENCE_BATCH: Final = 32
FINE_TUNING_RATE: Final = 5e-4
FROM_SCRATCH_RATE: Final = 1e-3
RATE_OF_STAGE_BEFORE: Final = 0.5


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. `batch_size` is global, over all workers.

    `train_from` is the first stage that trains (`conv1`, `layer1` … `layer4`, `head`), the ones before it
    stay as loaded; None leaves it to `first_trained_stage`. `precision` is a Keras dtype
    policy, or `auto` until a worker has seen its processor. After `patience` epochs without a better one the training
    ends; 0 is never: the schedule's last epochs are mostly its best. The defaults are the recipe that is known to work
    on the Kermany set.
    """

    network: str = "resnet50"
    weights: str = "imagenet"
    image_size: int = 224
    epochs: int = 16
    batch_size: int = 64
    train_from: str | None = None
    learning_rate: float = FINE_TUNING_RATE
    warmup_epochs: float = 0.5
    weight_decay: float = 1e-4
    label_smoothing: float = 0.05
    dropout: float = 0.3
    averaging: float = 0.98
    precision: str = "auto"
    patience: int = 0
    seed: int = 0

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate` is for a batch of 32; with Adam it goes with the root of the batch
        (Malladi et al. 2022)."""
        return self.learning_rate * math.sqrt(self.batch_size / REFERENCE_BATCH)


# What `pneumonia train` does unless told otherwise.
DEFAULT_RECIPE: Final = Recipe()


def first_trained_stage(loaded_stages: tuple[str, ...]) -> str:
    """The stage to train from when the user names none: layer3, or the first whose weights were not loaded.

    The early stages of an ImageNet network are edges and textures that serve X-rays as they are, and not
    training them costs a third less time.
    """
    for stage in ("conv1", "layer1", "layer2"):
        if stage not in loaded_stages:
            return stage
    return "layer3"


def first_fresh_stage(loaded_stages: tuple[str, ...]) -> str | None:
    """The first stage whose weights were not loaded; None where all were, those of a bundle of ours."""
    return next((stage for stage in STAGES if stage not in loaded_stages), None)


def stage_rates(fresh_from: str | None) -> dict[str, float]:
    """The factor of each stage's learning rate: one where weights are fresh, and in the head, and half as much for each
    stage before, which knows more already (discriminative rates, Howard and Ruder 2018)."""
    first = STAGES.index(fresh_from or "head")
    return {stage: RATE_OF_STAGE_BEFORE ** max(0, first - at) for at, stage in enumerate(STAGES)}


def best_epoch(figures: Sequence[Mapping[str, float]]) -> int:
    """The number, from 1, of the first epoch whose mean of the two validation AUROCs was the highest; 0 before any."""
    means = [epoch["auroc_pneumonia"] + epoch["auroc_bacterial"] for epoch in figures]
    return means.index(max(means)) + 1 if means else 0


def is_over(recipe: Recipe, figures: Sequence[Mapping[str, float]]) -> bool:
    """Whether a training that has these figures of its epochs ends here."""
    done = len(figures)
    return done >= recipe.epochs or stopped_early(recipe, figures)


def stopped_early(recipe: Recipe, figures: Sequence[Mapping[str, float]]) -> bool:
    """Whether the patience of a training was used up."""
    return 0 < recipe.patience <= len(figures) - best_epoch(figures)


def class_weights(labels: np.ndarray) -> tuple[float, ...]:
    """A weight for each class, the rarer the higher, of mean one over the images with these labels."""
    counts = np.bincount(labels, minlength=len(CLASSES))
    return tuple(float(len(labels) / (len(CLASSES) * max(count, 1))) for count in counts)


def check_first_stage(recipe: Recipe, loaded_stages: tuple[str, ...]) -> None:
    """Raises InvalidInput where a stage would stay as initialised: not loaded, and before those that train."""
    fresh = first_fresh_stage(loaded_stages)
    if recipe.train_from is None or fresh is None or STAGES.index(recipe.train_from) <= STAGES.index(fresh):
        return
    possible = ", ".join(STAGES[: STAGES.index(fresh) + 1])
    raise InvalidInput(
        f"--train-from {recipe.train_from} with --weights {recipe.weights}: the stage {fresh} has no loaded weights, and "
        f"would stay random and untrained. Train from {possible}, leave --train-from out, or give --weights that fill every "
        "stage before it."
    )
