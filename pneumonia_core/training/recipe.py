"""The recipe of a training: every setting in one frozen value that travels to the workers."""

import math
from dataclasses import dataclass
from typing import Final

from pneumonia_core.datasets.kermany import WRONG_KINDS
from pneumonia_core.errors import InvalidInput
from pneumonia_core.imaging.contract import SMOOTHING
from pneumonia_core.networks.catalog import STAGES

REFERENCE_BATCH: Final = 32
FINE_TUNING_RATE: Final = 5e-4
FROM_SCRATCH_RATE: Final = 1e-3
# How strongly training images vary; augment.STRENGTHS says what each means.
AUGMENT: Final = ("none", "light", "default", "strong")
# Between checkpoints within an epoch. It changes no weight, so a recipe does not hold it.
CHECKPOINT_MINUTES: Final = 10.0


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. `batch_size` is global, over all workers.

    `train_from` is the first stage that trains (`conv1`, `layer1` … `layer4`, `head`); earlier stages keep
    their loaded weights. None leaves it to `first_trained_stage`. `precision` is a Keras dtype policy, or
    `auto` until a worker has seen its processor. After `patience` epochs without a better one the training
    ends. 0 means never: the last epochs of the schedule are mostly its best.

    `weight_decay` is AdamW's, per unit of learning rate. `label_smoothing` is of pneumonia or normal;
    `kind_weight`, `false_bacterial` and `false_viral` are of the term for bacterial or viral
    (`HierarchicalLoss`).
    `augment` is one of AUGMENT; without `flip` no image is mirrored. With `smooth` the network sees images
    through `prefilter.smooth`, in training as in scoring.
    """

    network: str = "resnet50"
    weights: str = "imagenet"
    image_size: int = 224
    epochs: int = 4
    batch_size: int = 32
    train_from: str | None = None
    learning_rate: float = FINE_TUNING_RATE
    warmup_epochs: float = 0.5
    weight_decay: float = 0.0
    label_smoothing: float = 0.05
    kind_weight: float = 1.0
    false_bacterial: float = WRONG_KINDS["kermany"][0]
    false_viral: float = WRONG_KINDS["kermany"][1]
    dropout: float = 0.3
    averaging: float = 0.99
    precision: str = "auto"
    patience: int = 0
    seed: int = 0
    augment: str = "default"
    flip: bool = True
    smooth: bool = True

    @property
    def smoothing(self) -> float:
        """The weight of `prefilter.smooth`."""
        return SMOOTHING if self.smooth else 0.0

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate for this batch size, from `learning_rate` for a batch of 32.

        With Adam it scales with the square root of the batch size (Malladi et al. 2022).
        """
        return self.learning_rate * math.sqrt(self.batch_size / REFERENCE_BATCH)


# The defaults of `pneumonia train`.
DEFAULT_RECIPE: Final = Recipe()


def steps_per_epoch(recipe: Recipe, images: int) -> int:
    """Steps of whole batches of so many training images; at least one, in which images repeat."""
    return max(1, images // recipe.batch_size)


def first_trained_stage(loaded_stages: tuple[str, ...]) -> str:
    """The stage to train from by default: layer3, or an earlier one without loaded weights.

    The early stages of an ImageNet network detect edges and textures, which suit X-rays unchanged. Leaving
    them frozen saves a third of the time.
    """
    for stage in ("conv1", "layer1", "layer2"):
        if stage not in loaded_stages:
            return stage
    return "layer3"


def first_fresh_stage(loaded_stages: tuple[str, ...]) -> str | None:
    """The first stage without loaded weights; None where all were loaded, as from a bundle."""
    return next((stage for stage in STAGES if stage not in loaded_stages), None)


def check_first_stage(recipe: Recipe, loaded_stages: tuple[str, ...]) -> None:
    """Raises InvalidInput where a stage without loaded weights would be frozen, and so stay random."""
    fresh = first_fresh_stage(loaded_stages)
    if recipe.train_from is None or fresh is None or STAGES.index(recipe.train_from) <= STAGES.index(fresh):
        return
    possible = ", ".join(STAGES[: STAGES.index(fresh) + 1])
    raise InvalidInput(
        f"training from {recipe.train_from} with the weights {recipe.weights}: the stage {fresh} has no "
        f"loaded weights, and would stay random. Train from {possible}, name no first stage, or give weights "
        "that fill every stage before it."
    )
