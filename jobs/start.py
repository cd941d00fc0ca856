"""Where a worker starts: what it is told, and the first weights or the last checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pneumonia_core.catalog import STAGES
from pneumonia_core.errors import InvalidInput
from pneumonia_core.recipe import Recipe, first_fresh_stage, first_trained_stage


@dataclass(frozen=True)
class Assignment:
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


@dataclass(frozen=True)
class Start:
    """What all workers start from alike: the recipe with nothing left open, weights, epochs done."""

    recipe: Recipe
    first_stage: str
    fresh_from: str | None
    loaded_layers: int
    epoch: int
    history: tuple[dict[str, Any], ...]


def starting_point(
    assignment: Assignment, rank: int
) -> tuple[Start, list[np.ndarray], dict[str, np.ndarray] | None]:
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
    start = Start(
        Recipe(**document["recipe"]),
        document["first_stage"],
        document["fresh_from"],
        document["loaded_layers"],
        document["epoch"],
        tuple(document["history"]),
    )
    return start, weights_of("classifier", state), state


def numbered(group: str, weights: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A network's weights by names that keep their order."""
    return {f"{group}.{index:04}": array for index, array in enumerate(weights)}


def weights_of(group: str, state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The weights that stand in a state under such names, none where there are none."""
    return [state[name] for name in sorted(state) if name.startswith(f"{group}.")]


def _fresh_start(assignment: Assignment, rank: int) -> tuple[Start, list[np.ndarray]]:
    """Rank 0 makes the first weights for all: others may have no internet, or other random numbers."""
    import ray
    from ray.train.collective import broadcast_from_rank_zero

    made = None
    if rank == 0:
        start, weights = _first_weights(assignment)
        made = {"start": start, "weights": ray.put(weights)}
    made = broadcast_from_rank_zero(made)
    return made["start"], list(ray.get(made["weights"]))


def _first_weights(assignment: Assignment) -> tuple[Start, list[np.ndarray]]:
    import ray

    from pneumonia_core.networks import build_classifier
    from pneumonia_core.weights import load_weights

    recipe = assignment.recipe
    classifier = build_classifier(recipe.network, recipe.image_size)
    loaded = load_weights(classifier, recipe.weights, ray.get(assignment.sample))
    check_first_stage(recipe, loaded.stages)
    start = Start(
        recipe=replace(recipe, precision=_precision(recipe.precision)),
        first_stage=recipe.train_from or first_trained_stage(loaded.stages),
        fresh_from=first_fresh_stage(loaded.stages),
        loaded_layers=len(loaded.layers),
        epoch=0,
        history=(),
    )
    return start, classifier.get_weights()


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


def _precision(wanted: str) -> str:
    """What this worker's GPUs, or its CPU, multiply fastest, unless the user wants another."""
    import tensorflow as tf

    from pneumonia_core.processors import cpu_training_precision, gpu_training_precision

    if wanted != "auto":
        return wanted
    capabilities = [
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
        for gpu in tf.config.get_visible_devices("GPU")
    ]
    return gpu_training_precision(capabilities) if capabilities else cpu_training_precision()
