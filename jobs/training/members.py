"""The networks that a training trains: one, or one without each fold of the patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.console.output import say
from jobs.training.data import TrainingData, decode_training_data
from jobs.training.driver import Trained, run_training
from jobs.training.folder import TrainingRun
from jobs.training.placement import TrainingPlacement
from pneumonia_core.datasets.split import Parts
from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class Member:
    """A trained network, and the images that it was trained on and not trained on."""

    trained: Trained
    data: TrainingData


def train_members(
    parts: Sequence[Parts],
    recipe: Recipe,
    placement: TrainingPlacement,
    run: TrainingRun,
    logs: Path,
    checkpoint_s: float,
) -> list[Member]:
    """Train a network for each of the parts, one after the other.

    TensorBoard events go to `logs`. Within an epoch there is a checkpoint every `checkpoint_s`. A resumed
    training goes on with the first network that is not finished: a finished one is that of its last
    checkpoint. Raises PneumoniaError when a training fails.
    """
    if len(parts) == 1:
        return [_train_member(parts[0], recipe, placement, run, logs, checkpoint_s)]
    members = []
    for number, part in enumerate(parts):
        say(f"network {number + 1} of {len(parts)}, without fold {number + 1} of the patients")
        fold = run.open_fold(number)
        members.append(_train_member(part, recipe, placement, fold, logs / fold.name, checkpoint_s))
    return members


def _train_member(
    parts: Parts,
    recipe: Recipe,
    placement: TrainingPlacement,
    run: TrainingRun,
    logs: Path,
    checkpoint_s: float,
) -> Member:
    journals = run.folder.child("decoding")
    data = decode_training_data(*parts, recipe, placement.decode_cpus, journals)
    run.pin_data(data.digest)
    say(
        f"{len(data.training.labels):,} training and {len(data.validation.labels):,} validation images of "
        f"{recipe.image_size} px, {placement.count} worker{'s' if placement.count > 1 else ''}"
        + (f" with {placement.gpus} GPU{'s' if placement.gpus > 1 else ''} each" if placement.gpus else "")
    )
    return Member(run_training(recipe, data, placement, run, logs, checkpoint_s), data)
