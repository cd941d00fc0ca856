"""The history of a training: the figures of each epoch, the best epoch, and when the training ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class EpochProgress:
    """The first `steps` of an epoch: the sum of their losses, and their times.

    `seconds` are those of `timed_steps`, of which `waited_s` were spent waiting for images. The first step
    after each start is not timed, because it also compiles.
    """

    steps: int = 0
    loss: float = 0.0
    timed_steps: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0


NOT_BEGUN: Final = EpochProgress()


@dataclass(frozen=True)
class TrainingFigures:
    """How the steps of one epoch went. `images_per_s` is that of its timed steps."""

    loss: float
    learning_rate: float
    images_per_s: float
    waited_for_data_s: float

    @classmethod
    def of(cls, done: EpochProgress, learning_rate: float, batch_size: int) -> Self:
        """The figures of a finished epoch."""
        rate = done.timed_steps * batch_size / done.seconds if done.timed_steps else 0.0
        return cls(done.loss / done.steps, learning_rate, rate, done.waited_s)


@dataclass(frozen=True)
class ValidationFigures:
    """How good the averaged network is on the validation images.

    `auroc_pneumonia` is pneumonia vs normal by p_pneumonia; `auroc_bacterial` is bacterial vs viral by the
    bacterial share, among images with pneumonia of a known kind. Their standard errors are those of
    `auroc_standard_error`, the log-losses those of `tempered_log_loss`. Figures of the kind are None without
    images of both kinds.
    """

    validation_loss: float
    auroc_pneumonia: float
    auroc_bacterial: float | None
    accuracy_three_class: float | None
    validation_s: float
    auroc_pneumonia_se: float | None = None
    auroc_bacterial_se: float | None = None
    log_loss_pneumonia: float | None = None
    log_loss_bacterial: float | None = None

    def describe(self) -> str:
        """Both AUROCs as a phrase for a person."""
        pneumonia = _describe("pneumonia vs normal", self.auroc_pneumonia, self.auroc_pneumonia_se)
        if self.auroc_bacterial is None:
            return f"validation AUROC {pneumonia}"
        kind = _describe("bacterial vs viral", self.auroc_bacterial, self.auroc_bacterial_se)
        return f"validation AUROC {pneumonia}, {kind}"


@dataclass(frozen=True)
class EpochFigures:
    """TrainingFigures and ValidationFigures of one epoch, flat, as checkpoints and bundles hold them.

    Checkpoints of versions that did not measure the last four have None.
    """

    epoch: int
    loss: float
    learning_rate: float
    images_per_s: float
    waited_for_data_s: float
    validation_loss: float
    auroc_pneumonia: float
    auroc_bacterial: float | None
    accuracy_three_class: float | None
    validation_s: float
    auroc_pneumonia_se: float | None = None
    auroc_bacterial_se: float | None = None
    log_loss_pneumonia: float | None = None
    log_loss_bacterial: float | None = None

    @classmethod
    def of(cls, epoch: int, trained: TrainingFigures, validated: ValidationFigures) -> Self:
        return cls(epoch, **asdict(trained), **asdict(validated))

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> Self:
        return cls(**figures)

    @property
    def validated(self) -> ValidationFigures:
        return ValidationFigures(**{name: getattr(self, name) for name in _VALIDATED})

    def scalars(self) -> dict[str, float]:
        """Every measured figure by its name, except the number of the epoch."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}

    def describe(self) -> str:
        """Both AUROCs as a phrase for a person."""
        return self.validated.describe()


_VALIDATED: Final = tuple(field.name for field in fields(ValidationFigures))


def _describe(task: str, auroc: float, standard_error: float | None) -> str:
    error = "" if standard_error is None else f" ± {standard_error:.4f}"
    return f"{auroc:.4f}{error} {task}"


def best_epoch(history: Sequence[EpochFigures]) -> int:
    """The number, from 1, of the first epoch with the least sum of both log-losses; 0 before any epoch.

    AUROCs are too coarse to choose by: that of pneumonia is nearly 1 from the second epoch on.
    """
    losses = [_selection_loss(figures) for figures in history]
    return losses.index(min(losses)) + 1 if losses else 0


def _selection_loss(figures: EpochFigures) -> float:
    """Infinite for an epoch of a version that did not measure it.

    It is rounded, because processors may differ in the last digits, and all workers must choose alike.
    """
    if figures.log_loss_pneumonia is None:
        return math.inf
    return round(figures.log_loss_pneumonia + (figures.log_loss_bacterial or 0.0), 6)


def released_epoch(recipe: Recipe, history: Sequence[EpochFigures]) -> EpochFigures:
    """The epoch whose averaged weights are released: the best where patience ran out, else the last."""
    return history[best_epoch(history) - 1 if stopped_early(recipe, history) else -1]


def is_over(recipe: Recipe, history: Sequence[EpochFigures]) -> bool:
    """Whether a training with this history ends."""
    return len(history) >= recipe.epochs or stopped_early(recipe, history)


def stopped_early(recipe: Recipe, history: Sequence[EpochFigures]) -> bool:
    """Whether a training used up its patience."""
    return 0 < recipe.patience <= len(history) - best_epoch(history)
