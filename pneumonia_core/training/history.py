"""The history of a training: the figures of each epoch, the best epoch, and when the training ends."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingFigures:
    """How the steps of one epoch went. `images_per_s` leaves out the first step, which compiles."""

    loss: float
    learning_rate: float
    images_per_s: float
    waited_for_data_s: float


@dataclass(frozen=True)
class ValidationFigures:
    """How good the averaged network is on the validation images.

    `auroc_pneumonia` is pneumonia vs normal by p_pneumonia; `auroc_bacterial` is bacterial vs viral among
    images with pneumonia by the bacterial share.
    """

    validation_loss: float
    auroc_pneumonia: float
    auroc_bacterial: float
    accuracy_three_class: float
    validation_s: float

    def describe(self) -> str:
        """Both AUROCs as a phrase for a person."""
        return describe_aurocs(self.auroc_pneumonia, self.auroc_bacterial)


@dataclass(frozen=True)
class EpochFigures:
    """TrainingFigures and ValidationFigures of one epoch, flat, as checkpoints and bundles hold them."""

    epoch: int
    loss: float
    learning_rate: float
    images_per_s: float
    waited_for_data_s: float
    validation_loss: float
    auroc_pneumonia: float
    auroc_bacterial: float
    accuracy_three_class: float
    validation_s: float

    @classmethod
    def of(cls, epoch: int, trained: TrainingFigures, validated: ValidationFigures) -> Self:
        return cls(epoch, **asdict(trained), **asdict(validated))

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        return cls(**figures)

    def scalars(self) -> dict[str, float]:
        """Every figure by its name, except the number of the epoch."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}

    def describe(self) -> str:
        """Both AUROCs as a phrase for a person."""
        return describe_aurocs(self.auroc_pneumonia, self.auroc_bacterial)


def describe_aurocs(pneumonia: float, bacterial: float) -> str:
    return f"validation AUROC {pneumonia:.4f} pneumonia vs normal, {bacterial:.4f} bacterial vs viral"


def best_epoch(history: Sequence[EpochFigures]) -> int:
    """The number, from 1, of the first epoch with the highest mean of both AUROCs; 0 before any epoch."""
    means = [figures.auroc_pneumonia + figures.auroc_bacterial for figures in history]
    return means.index(max(means)) + 1 if means else 0


def is_over(recipe: Recipe, history: Sequence[EpochFigures]) -> bool:
    """Whether a training with this history ends."""
    return len(history) >= recipe.epochs or stopped_early(recipe, history)


def stopped_early(recipe: Recipe, history: Sequence[EpochFigures]) -> bool:
    """Whether a training used up its patience."""
    return 0 < recipe.patience <= len(history) - best_epoch(history)
