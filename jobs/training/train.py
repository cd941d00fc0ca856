"""A training from labels to bundle: split, decode, train on Ray Train, release."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.ray_runtime.capabilities import blind_nodes, node_capabilities, unseen_gpus
from jobs.ray_runtime.resources import GROWTH_S, Node, wait_for
from jobs.ray_runtime.session import names_a_cluster, ray_session
from jobs.training.data import TrainingData, decode_training_data
from jobs.training.folder import TrainingRun, open_training
from jobs.training.placement import TrainingPlacement, plan_workers
from pneumonia_core.bundles.training_images import TrainingImages
from pneumonia_core.datasets.kermany import KNOWN_AGES_YEARS, LabelledImage, known_data_set
from pneumonia_core.datasets.labelled import read_labelled, split_training
from pneumonia_core.domain import parse_ages
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.findings import DEFAULT_COVERAGE
from pneumonia_core.networks.catalog import KERAS_LAYOUT, check_network, check_source
from pneumonia_core.networks.domain_guard import GUARD_IMAGES
from pneumonia_core.storage.location import open_location
from pneumonia_core.training.history import released_epoch
from pneumonia_core.training.recipe import (
    DEFAULT_RECIPE,
    FINE_TUNING_RATE,
    FROM_SCRATCH_RATE,
    Recipe,
    check_first_stage,
)

if TYPE_CHECKING:
    # The driver imports TensorFlow.
    from jobs.training.driver import Trained


@dataclass(frozen=True)
class TrainingRequest:
    """What a training is requested to do.

    `data` is a local path or URI as read_labelled takes it. `workers` and `name` None are chosen. `data_set`
    is one of kermany.DATA_SETS; None goes by the file names. `ages_years` None are those of the data set,
    where it is known.
    """

    recipe: Recipe
    data: str
    models: Path
    workers: int | None
    gpus: int
    storage: str | None
    name: str | None
    ages_years: tuple[float, float] | None
    data_set: str | None
    coverage: float
    mirror: bool
    resume: bool
    address: str | None

    def settings(self) -> dict[str, Any]:
        """What must be the same to resume the training."""
        ages = {"ages_years": list(self.ages_years)} if self.ages_years else {}
        coverage = {} if self.coverage == DEFAULT_COVERAGE else {"coverage": self.coverage}
        mirror = {"mirror": True} if self.mirror else {}
        return {**asdict(self.recipe), "data": self.data, **ages, **coverage, **mirror}


def make_request(
    data: str,
    models: str,
    workers: int | None = None,
    gpus: int = 0,
    storage: str | None = None,
    name: str | None = None,
    ages: str | None = None,
    resume: bool = False,
    address: str | None = None,
    data_set: str | None = None,
    coverage: float = DEFAULT_COVERAGE,
    mirror: bool = False,
    **recipe_options: Any,  # noqa: ANN401 - Recipe checks them
) -> TrainingRequest:
    """The request that the command's options make. Raises InvalidInput where they are wrong.

    `recipe_options` are fields of Recipe; `weights` None is imagenet where Keras has such weights.
    """
    return TrainingRequest(
        recipe=_recipe(recipe_options),
        # Workers have another working directory.
        data=data if "://" in data else str(Path(data).absolute()),
        models=Path(models).absolute(),
        workers=workers,
        gpus=gpus,
        storage=storage,
        name=name,
        ages_years=parse_ages(ages) if ages is not None else None,
        data_set=data_set,
        coverage=coverage,
        mirror=mirror,
        resume=resume,
        address=address,
    )


def train(request: TrainingRequest) -> Result:
    """Train and write a bundle, in the Ray session that is open or in a new one."""
    started = time.perf_counter()
    training, validation = split_training(read_labelled(request.data))
    weights_sha256 = _file_sha256(request.recipe.weights)
    run = _open_run(request)
    if run.result is not None:
        return run.result
    with ray_session(request.address):
        placement = _place_workers(request)
        journals = run.folder.child("decoding")
        data = decode_training_data(training, validation, request.recipe, placement.decode_cpus, journals)
        run.pin_data(data.digest)
        trained = _train_on_cluster(request, data, placement, run)
        result = _release(request, trained, data, run, training, weights_sha256)
    result["seconds"] = round(time.perf_counter() - started, 1)
    run.finish(result)
    return result


def _recipe(options: dict[str, Any]) -> Recipe:
    network = options.get("network", DEFAULT_RECIPE.network)
    if options.get("weights") is None:
        options = {**options, "weights": "imagenet" if network in KERAS_LAYOUT else "none"}
    if options.get("learning_rate") is None:
        rate = FROM_SCRATCH_RATE if options["weights"] == "none" else FINE_TUNING_RATE
        options = {**options, "learning_rate": rate}
    if options["weights"] not in ("none", "imagenet"):
        options = {**options, "weights": str(Path(options["weights"]).absolute())}
    recipe = Recipe(**options)
    check_network(recipe.network, recipe.image_size)
    check_source(recipe.network, recipe.weights)
    if recipe.weights == "none":
        check_first_stage(recipe, ())
    return recipe


def _file_sha256(weights: str) -> str | None:
    """The SHA-256 of the file of initial weights; None where they are not from a file of the user's.

    Keras checks the hash of the ImageNet weights that it downloads, so their name says which they are.
    """
    if weights in ("none", "imagenet"):
        return None
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_run(request: TrainingRequest) -> TrainingRun:
    settings = request.settings()
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    name = request.name or f"{request.recipe.network}-{digest[:8]}"
    models = open_location(str(request.models))
    storage = open_location(request.storage) if request.storage else models.child("training")
    return open_training(storage, name, settings, request.resume)


def _place_workers(request: TrainingRequest) -> TrainingPlacement:
    growth_s = GROWTH_S if names_a_cluster(request.address) else 0
    nodes = wait_for(Node(cpus=1, gpus=request.gpus), time.monotonic() + growth_s)
    if request.gpus:
        _check_gpus_are_seen(nodes)
    return plan_workers(request.workers, request.gpus, request.recipe.batch_size, nodes)


def _check_gpus_are_seen(nodes: Sequence[Node]) -> None:
    """Raise InvalidInput where a worker with a GPU could land on a node on which TensorFlow sees none."""
    blind = blind_nodes(nodes, node_capabilities(nodes, look_for_gpus=True))
    if blind:
        raise InvalidInput(unseen_gpus(blind, len(nodes)), Remedy.INSTALL_GPU)


def _train_on_cluster(
    request: TrainingRequest, data: TrainingData, placement: TrainingPlacement, run: TrainingRun
) -> "Trained":
    # TensorFlow takes seconds to import, and a session must set its environment first.
    from jobs.training.driver import run_training

    say(
        f"{len(data.training.labels):,} training and {len(data.validation.labels):,} validation images of "
        f"{request.recipe.image_size} px, {placement.count} worker{'s' if placement.count > 1 else ''}"
        + (f" with {placement.gpus} GPU{'s' if placement.gpus > 1 else ''} each" if placement.gpus else "")
    )
    return run_training(request.recipe, data, placement, run, request.models / "tensorboard" / run.name)


def _release(
    request: TrainingRequest,
    trained: "Trained",
    data: TrainingData,
    run: TrainingRun,
    training: Sequence[LabelledImage],
    weights_sha256: str | None,
) -> Result:
    """Write the bundle; the command's result without its seconds."""
    # These import TensorFlow, as above.
    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.training.augment import augmentation_of
    from pneumonia_core.training.release import Provenance, release
    from pneumonia_core.training.validation import ValidationSet

    say("writing the bundle")
    recipe = trained.recipe
    classifier = build_classifier(recipe.network, recipe.image_size)
    classifier.set_weights(trained.weights)
    data_set = request.data_set or known_data_set(image.uri for image in training)
    provenance = Provenance(
        data_fingerprint=data.digest,
        data_set=data_set,
        weights=Path(recipe.weights).name,
        training=_training_record(run, trained, data, weights_sha256),
        images=TrainingImages(data.training.contents, data.validation.contents),
        ages_years=request.ages_years or KNOWN_AGES_YEARS.get(data_set),
    )
    validation = ValidationSet(data.validation_images, data.validation.labels, data.validation.patients)
    released = release(
        request.models,
        [classifier],
        data.training.images(GUARD_IMAGES),
        validation,
        provenance,
        coverage=request.coverage,
        mirror=request.mirror,
        smoothing=recipe.smoothing,
        strength=augmentation_of(recipe),
    )
    say(f"the network that is kept: {released_epoch(recipe, trained.history).describe()} (± standard error)")
    if trained.class_weights.bacterial == 0:
        say(
            "no training image says the kind of pneumonia: "
            "bacterial and viral of this bundle mean pneumonia; use p_pneumonia"
        )
    say(f"bundle {released.bundle.path}")
    return {
        "state": "done",
        "bundle": str(released.bundle.path),
        "model_id": released.bundle.model_id,
        "run": run.name,
        "validation": released.headline(),
        "epochs": len(trained.history),
        "images_per_s": round(float(np.mean([epoch.images_per_s for epoch in trained.history])), 1),
    }


def _training_record(
    run: TrainingRun, trained: "Trained", data: TrainingData, weights_sha256: str | None
) -> dict[str, Any]:
    """What the bundle records of its training."""
    recipe = trained.recipe
    return {
        "run": run.name,
        "recipe": {**asdict(recipe), "weights": Path(recipe.weights).name},
        "weights_sha256": weights_sha256,
        "first_trained_stage": trained.first_stage,
        "images": {"training": len(data.training.labels), "validation": len(data.validation.labels)},
        "class_weights": asdict(trained.class_weights),
        "history": [asdict(epoch) for epoch in trained.history],
    }
