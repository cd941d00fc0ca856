"""The bundle of the networks that a training trained, and the command's result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.training.folder import TrainingRun
from jobs.training.members import Member
from pneumonia_core.bundles.training_images import TrainingImages
from pneumonia_core.datasets.kermany import KNOWN_AGES_YEARS
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.domain_guard import GUARD_IMAGES
from pneumonia_core.training.augment import augmentation_of
from pneumonia_core.training.history import released_epoch
from pneumonia_core.training.release import Provenance, release
from pneumonia_core.training.validation import ValidationSet


@dataclass(frozen=True)
class Origin:
    """What the bundle says of its data and initial weights.

    `data_set` is one of kermany.DATA_SETS. `ages_years` None: those of the data set, where it is known.
    `weights_sha256` None: no file of the user.
    """

    data_set: str
    ages_years: tuple[float, float] | None
    weights_sha256: str | None


def release_members(
    members: Sequence[Member], run: TrainingRun, models: Path, origin: Origin, coverage: float, mirror: bool
) -> Result:
    """Write the bundle of the networks' mean; the command's result without its seconds.

    Calibration, thresholds and the guard's threshold are fitted on images that a network was not trained on.
    """
    say("writing the bundle")
    first = members[0]
    recipe = first.trained.recipe
    provenance = Provenance(
        data_fingerprint=first.data.digest,
        data_set=origin.data_set,
        weights=Path(recipe.weights).name,
        training=_training_record(members, run, origin.weights_sha256),
        images=_training_images(members),
        ages_years=origin.ages_years or KNOWN_AGES_YEARS.get(origin.data_set),
    )
    released = release(
        models,
        [_classifier(member) for member in members],
        first.data.training.images(GUARD_IMAGES),
        _validation(members),
        provenance,
        coverage=coverage,
        mirror=mirror,
        smoothing=recipe.smoothing,
        strength=augmentation_of(recipe),
    )
    for member in members:
        kept = released_epoch(recipe, member.trained.history).describe()
        say(f"the network that is kept: {kept} (± standard error)")
    if first.trained.class_weights.bacterial == 0:
        say(
            "no training image says the kind of pneumonia: "
            "bacterial and viral of this bundle mean pneumonia; use p_pneumonia"
        )
    say(f"bundle {released.bundle.path}")
    rates = [epoch.images_per_s for member in members for epoch in member.trained.history]
    return {
        "state": "done",
        "bundle": str(released.bundle.path),
        "model_id": released.bundle.model_id,
        "run": run.name,
        "validation": released.headline(),
        "epochs": len(first.trained.history),
        "images_per_s": round(float(np.mean(rates)), 1),
    }


def _classifier(member: Member) -> Any:  # noqa: ANN401 - Keras has no types
    recipe = member.trained.recipe
    classifier = build_classifier(recipe.network, recipe.image_size)
    classifier.set_weights(member.trained.weights)
    return classifier


def _validation(members: Sequence[Member]) -> ValidationSet:
    """The images of all folds, each held out of one network's training; of one network those held back."""
    data = [member.data for member in members]
    sizes = [len(part.validation.labels) for part in data]
    return ValidationSet(
        np.concatenate([part.validation_images for part in data]),
        np.concatenate([part.validation.labels for part in data]),
        np.concatenate([part.validation.patients for part in data]),
        np.repeat(np.arange(len(data)), sizes) if len(data) > 1 else None,
    )


def _training_images(members: Sequence[Member]) -> TrainingImages:
    """The files that the bundle was trained on: one that any of its networks saw was."""
    trained_on = frozenset().union(*(member.data.training.contents for member in members))
    held_back = frozenset().union(*(member.data.validation.contents for member in members))
    return TrainingImages(trained_on, held_back - trained_on)


def _training_record(
    members: Sequence[Member], run: TrainingRun, weights_sha256: str | None
) -> dict[str, Any]:
    """What the bundle records of its training; the history of several networks has `fold` in each epoch."""
    first = members[0]
    recipe = first.trained.recipe
    several = len(members) > 1
    histories = [
        {**({"fold": number} if several else {}), **asdict(epoch)}
        for number, member in enumerate(members)
        for epoch in member.trained.history
    ]
    return {
        "run": run.name,
        "recipe": {**asdict(recipe), "weights": Path(recipe.weights).name},
        **({"folds": len(members)} if several else {}),
        "weights_sha256": weights_sha256,
        "first_trained_stage": first.trained.first_stage,
        "images": {
            "training": len(first.data.training.labels),
            "validation": len(first.data.validation.labels),
        },
        "class_weights": asdict(first.trained.class_weights),
        "history": histories,
    }
