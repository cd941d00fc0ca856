"""The bundle of the networks that a training trained, and the command's result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import ray

from jobs.console.command import Result
from jobs.console.output import say
from jobs.console.remedies import error_line
from jobs.ray_runtime.session import ray_errors_explained
from jobs.training.folder import TrainingRun
from jobs.training.members import Member
from jobs.training.placement import TrainingPlacement
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.bundles.engines import INT8_ENGINE, LEAST_HELD_BACK
from pneumonia_core.bundles.openvino_runtime.quantization import check_quantization
from pneumonia_core.bundles.tensorflow_runtime.engine import hide_gpus
from pneumonia_core.bundles.training_images import TrainingImages
from pneumonia_core.bundles.writer import read_files, write_files
from pneumonia_core.datasets.kermany import KNOWN_AGES_YEARS
from pneumonia_core.errors import InvalidInput
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.domain_guard import GUARD_IMAGES
from pneumonia_core.system.scratch import ScratchFolder
from pneumonia_core.training.augment import augmentation_of
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.history import released_epoch
from pneumonia_core.training.recipe import Recipe
from pneumonia_core.training.release import Provenance, Release, release


@dataclass(frozen=True)
class Origin:
    """What the bundle says of its data and initial weights.

    `data_set` is one of kermany.DATA_SETS. `ages_years` None: those of the data set, where it is known.
    `weights_sha256` None: no file of the user.
    """

    data_set: str
    ages_years: tuple[float, float] | None
    weights_sha256: str | None


@dataclass(frozen=True)
class ReleaseInput:
    """All that a release needs: the networks' weights, each in Keras's order, and `trained_on`, some training
    images uint8 [N, H, W] of the first."""

    recipe: Recipe
    weights: Sequence[Sequence[np.ndarray]]
    trained_on: np.ndarray
    validation: ValidationSet
    provenance: Provenance
    coverage: float
    mirror: bool
    int8: bool
    float16: bool = False


def release_members(
    members: Sequence[Member],
    run: TrainingRun,
    models: Path,
    origin: Origin,
    coverage: float,
    mirror: bool,
    int8: bool | None = None,
    on_worker: TrainingPlacement | None = None,
    float16: bool = False,
) -> Result:
    """Write the bundle of the networks' mean; the command's result without its seconds.

    Calibration, thresholds and the guard's threshold are fitted on images that a network was not trained on:
    in this process, or in a task with the resources of a worker `on_worker`. `int8` says whether the bundle
    has the engine INT8_ENGINE too; None: where it can be made in this installation. `float16` says whether
    its TensorFlow engine also computes in float16 on GPUs.
    """
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
    validation = _validation(members)
    wanted = ReleaseInput(
        recipe,
        [member.trained.weights for member in members],
        first.data.training.images.first(GUARD_IMAGES),
        validation,
        provenance,
        coverage,
        mirror,
        int8=_with_int8(len(validation.labels)) if int8 is None else int8,
        float16=float16,
    )
    if wanted.int8:
        say(
            f"the engine {INT8_ENGINE} is made too (--no-int8 leaves it out): a minute, or half an hour "
            "where much of a large network must stay in float32"
        )
    if on_worker is None:
        say("writing the bundle")
        with ray_errors_explained():
            released = write_release(models, wanted)
        bundle, headline = released.bundle, released.headline()
    else:
        say("writing the bundle, on a worker's node")
        bundle, headline = release_on_worker(models, wanted, on_worker)
    for member in members:
        kept = released_epoch(recipe, member.trained.history).describe()
        say(f"the network that is kept: {kept} (± standard error)")
    if first.trained.class_weights.bacterial == 0:
        say(
            "no training image says the kind of pneumonia: "
            "bacterial and viral of this bundle mean pneumonia; use p_pneumonia"
        )
    _tell_int8(bundle)
    say(f"bundle {bundle.path}")
    rates = [epoch.images_per_s for member in members for epoch in member.trained.history]
    return {
        "state": "done",
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "run": run.name,
        "validation": headline,
        "epochs": len(first.trained.history),
        "images_per_s": round(float(np.mean(rates)), 1),
    }


def write_release(models: Path, wanted: ReleaseInput) -> Release:
    """Calibrate, evaluate and write the bundle under `models`, in this process and without its GPUs."""
    if not hide_gpus():
        say("TensorFlow has already started in this process: the bundle is calibrated on its GPUs")
    return release(
        models,
        [_classifier(wanted.recipe, weights) for weights in wanted.weights],
        wanted.trained_on,
        wanted.validation,
        wanted.provenance,
        coverage=wanted.coverage,
        mirror=wanted.mirror,
        smoothing=wanted.recipe.smoothing,
        strength=augmentation_of(wanted.recipe),
        int8=wanted.int8,
        float16=wanted.float16,
    )


def _with_int8(held_back: int) -> bool:
    """Whether INT8_ENGINE can be made here and compared on so many held-back images; says why not."""
    if held_back < LEAST_HELD_BACK:
        return False
    try:
        check_quantization()
    except InvalidInput as error:
        say(f"{error_line(error)} The bundle does without it; `pneumonia export` adds it later")
        return False
    return True


def _tell_int8(bundle: Bundle) -> None:
    report = bundle.engines.get(INT8_ENGINE)
    if report is not None:
        passed = "passed parity" if report.parity_passed else "missed parity, so that `auto` leaves it out"
        say(
            f"{INT8_ENGINE} {passed}: findings agree on {report.findings_agreement:.1%}, AUROC differs by "
            f"{report.auroc_difference:.4f}"
        )


def release_on_worker(
    models: Path, wanted: ReleaseInput, worker: TrainingPlacement
) -> tuple[Bundle, dict[str, Any]]:
    """The same in a task; the bundle comes back through Ray: `models` may be on this machine alone."""
    # The process ends with its task, and with it what TensorFlow holds.
    task: Any = ray.remote(max_calls=1, num_cpus=worker.cpus)(release_as_files)
    with ray_errors_explained():
        name, files, headline = ray.get(task.remote(ray.put(wanted)))
    return write_files(models, name, files), headline


def release_as_files(wanted: ReleaseInput) -> tuple[str, Mapping[str, bytes], dict[str, Any]]:
    """A new bundle's name and files, and the main figures of its evaluation."""
    with ScratchFolder("release") as folder:
        released = write_release(folder, wanted)
        return released.bundle.path.name, read_files(released.bundle), released.headline()


def _classifier(recipe: Recipe, weights: Sequence[np.ndarray]) -> keras.Model:
    classifier = build_classifier(recipe.network, recipe.image_size)
    classifier.set_weights(weights)
    return classifier


def _validation(members: Sequence[Member]) -> ValidationSet:
    """The images of all folds, each held out of one network's training; of one network those held back."""
    data = [member.data for member in members]
    sizes = [len(part.validation.labels) for part in data]
    return ValidationSet(
        ImageParts.joined([part.validation.images for part in data]),
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
