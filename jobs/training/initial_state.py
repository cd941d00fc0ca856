"""Where a worker starts: what it is told, and the first weights or the last checkpoint."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia_core.training.checkpoint import InitialState, weights_of
from pneumonia_core.training.recipe import Recipe, check_first_stage, first_fresh_stage, first_trained_stage


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is told. References are to arrays in the object store.

    `sample` are some training images, uint8 [N, H, W], `validation` all of (images, labels) to validate on. A worker has
    `gpus` GPUs.
    """

    recipe: Recipe
    gpus: int
    steps_per_epoch: int
    class_weights: tuple[float, ...]
    sample: Any
    validation_images: Any
    validation_labels: Any
    board: Any


def starting_point(
    assignment: WorkerConfig, rank: int
) -> tuple[InitialState, list[np.ndarray], dict[str, np.ndarray] | None]:
    """Where to start, the classifier's weights there, and the state of a checkpoint if there is one."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        start, weights = _fresh_start(assignment, rank)
        return start, weights, None
    with checkpoint.as_directory() as folder:
        document = json.loads((Path(folder) / "state.json").read_text(encoding="utf-8"))
        with np.load(Path(folder) / "state.npz", allow_pickle=False) as file:
            state = dict(file)
    start = InitialState(
        Recipe(**document["recipe"]),
        document["first_stage"],
        document["fresh_from"],
        document["loaded_layers"],
        document["epoch"],
        tuple(document["history"]),
    )
    return start, weights_of("classifier", state), state


def _fresh_start(assignment: WorkerConfig, rank: int) -> tuple[InitialState, list[np.ndarray]]:
    """Rank 0 makes the first weights for all: others may have no internet, or other random numbers."""
    import ray
    from ray.train.collective import broadcast_from_rank_zero

    made = None
    if rank == 0:
        start, weights = _first_weights(assignment)
        made = {"start": start, "weights": ray.put(weights)}
    made = broadcast_from_rank_zero(made)
    return made["start"], list(ray.get(made["weights"]))


def _first_weights(assignment: WorkerConfig) -> tuple[InitialState, list[np.ndarray]]:
    import ray

    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.networks.pretrained import load_weights

    recipe = assignment.recipe
    classifier = build_classifier(recipe.network, recipe.image_size)
    loaded = load_weights(classifier, recipe.weights, ray.get(assignment.sample))
    check_first_stage(recipe, loaded.stages)
    start = InitialState(
        recipe=replace(recipe, precision=_precision(recipe.precision)),
        first_stage=recipe.train_from or first_trained_stage(loaded.stages),
        fresh_from=first_fresh_stage(loaded.stages),
        loaded_layers=len(loaded.layers),
        epoch=0,
        history=(),
    )
    return start, classifier.get_weights()


def _precision(wanted: str) -> str:
    """What this worker's GPUs, or its CPU, multiply fastest, unless the user wants another."""
    import tensorflow as tf

    from pneumonia_core.system.environment import cpu_training_precision, gpu_training_precision

    if wanted != "auto":
        return wanted
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.get_visible_devices("GPU")
    ]
    return gpu_training_precision(capabilities) if capabilities else cpu_training_precision()
