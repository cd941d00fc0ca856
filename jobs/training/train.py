"""A training from labels to bundle: split, decode, train on Ray Train, release."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.console.command import Result
from jobs.ray_runtime.capabilities import blind_nodes, node_capabilities, unseen_gpus
from jobs.ray_runtime.resources import GROWTH_S, Node, driver_node, wait_for
from jobs.ray_runtime.session import names_a_cluster, ray_session
from jobs.training.folder import TrainingRun, check_nothing_else_to_resume, open_training
from jobs.training.placement import TrainingPlacement, can_release_on, plan_workers
from pneumonia_core.datasets.kermany import known_data_set
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import Parts, split_folds, split_training
from pneumonia_core.domain import parse_ages
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.findings import DEFAULT_COVERAGE
from pneumonia_core.networks.catalog import KERAS_LAYOUT, check_network, check_source
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.synonyms import canonical
from pneumonia_core.training.recipe import (
    CHECKPOINT_MINUTES,
    DEFAULT_RECIPE,
    FINE_TUNING_RATE,
    FROM_SCRATCH_RATE,
    Recipe,
    check_first_stage,
)


@dataclass(frozen=True)
class TrainingRequest:
    """What a training is requested to do.

    `data` is a local path or URI as read_labelled takes it. `workers` and `name` None are chosen. `data_set`
    is one of kermany.DATA_SETS; None goes by the file names. `ages_years` None are those of the data set,
    where it is known. `folds` is the number of networks; from 2 on, each is trained without one fold. `int8`
    None: the bundle has the engine INT8_ENGINE where it can be made. Within an epoch there is a checkpoint
    every `checkpoint_s`.
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
    folds: int
    resume: bool
    checkpoint_s: float
    address: str | None
    int8: bool | None

    def settings(self) -> dict[str, Any]:
        """What must be the same to resume the training."""
        ages = {"ages_years": list(self.ages_years)} if self.ages_years else {}
        coverage = {} if self.coverage == DEFAULT_COVERAGE else {"coverage": self.coverage}
        mirror = {"mirror": True} if self.mirror else {}
        folds = {"folds": self.folds} if self.folds > 1 else {}
        return {**asdict(self.recipe), "data": self.data, **ages, **coverage, **mirror, **folds}


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
    folds: int = 1,
    int8: bool | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    **recipe_options: Any,  # noqa: ANN401 - Recipe checks them
) -> TrainingRequest:
    """The request that the command's options make. Raises InvalidInput where they are wrong.

    `recipe_options` are fields of Recipe; `weights` None is imagenet where Keras has such weights. A
    `batch_size` of None is that of the default recipe for each GPU.
    """
    return TrainingRequest(
        recipe=_recipe(recipe_options, gpus),
        # Workers have another working directory.
        data=data if "://" in canonical(data) else str(Path(data).absolute()),
        models=Path(models).absolute(),
        workers=workers,
        gpus=gpus,
        storage=storage,
        name=name,
        ages_years=parse_ages(ages) if ages is not None else None,
        data_set=data_set,
        coverage=coverage,
        mirror=mirror,
        folds=folds,
        resume=resume,
        checkpoint_s=60 * checkpoint_minutes,
        address=address,
        int8=int8,
    )


def train(request: TrainingRequest) -> Result:
    """Train and write a bundle, in the Ray session that is open or in a new one."""
    started = time.perf_counter()
    if request.int8:
        # OpenVINO takes a while to import.
        from pneumonia_core.bundles.openvino_runtime.quantization import check_quantization

        check_quantization()
    parts = split_images(request)
    weights_sha256 = _file_sha256(request.recipe.weights)
    run = _open_run(request)
    if run.result is not None:
        return run.result
    with ray_session(request.address):
        # TensorFlow takes seconds to import, and a session must set its environment first.
        from jobs.training.members import train_members
        from jobs.training.release import Origin, release_members

        nodes, placement = place_workers(request)
        logs = request.models / "tensorboard" / run.name
        members = train_members(parts, request.recipe, placement, run, logs, request.checkpoint_s)
        origin = Origin(
            data_set=request.data_set or known_data_set(image.uri for image in parts[0][0]),
            ages_years=request.ages_years,
            weights_sha256=weights_sha256,
        )
        here = can_release_on(driver_node(), nodes, placement)
        result = release_members(
            members,
            run,
            request.models,
            origin,
            coverage=request.coverage,
            mirror=request.mirror,
            int8=request.int8,
            on_worker=None if here else placement,
            # Whoever trains on GPUs has some to score on. CPUs may take long for what it is compared by.
            float16=placement.gpus > 0,
        )
    result["seconds"] = round(time.perf_counter() - started, 1)
    run.finish(result)
    return result


def split_images(request: TrainingRequest) -> list[Parts]:
    """The images to train each network on, and those held back from it."""
    images = read_labelled(request.data)
    return split_folds(images, request.folds) if request.folds > 1 else [split_training(images)]


def _recipe(options: dict[str, Any], gpus: int) -> Recipe:
    network = options.get("network", DEFAULT_RECIPE.network)
    if options.get("batch_size") is None:
        options = {**options, "batch_size": DEFAULT_RECIPE.batch_size * max(1, gpus)}
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
    if request.resume and request.name is None:
        check_nothing_else_to_resume(storage, name, settings)
    return open_training(storage, name, settings, request.resume)


def place_workers(request: TrainingRequest) -> tuple[list[Node], TrainingPlacement]:
    """The cluster's nodes once it has the requested GPUs, and the workers on them."""
    growth_s = GROWTH_S if names_a_cluster(request.address) else 0
    nodes = wait_for(Node(cpus=1, gpus=request.gpus), time.monotonic() + growth_s)
    if request.gpus:
        _check_gpus_are_seen(nodes)
    return nodes, plan_workers(request.workers, request.gpus, request.recipe.batch_size, nodes)


def _check_gpus_are_seen(nodes: Sequence[Node]) -> None:
    """Raise InvalidInput where a worker with a GPU could land on a node on which TensorFlow sees none."""
    blind = blind_nodes(nodes, node_capabilities(nodes, look_for_gpus=True))
    if blind:
        raise InvalidInput(unseen_gpus(blind, len(nodes)), Remedy.INSTALL_GPU)
