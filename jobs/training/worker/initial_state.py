"""How a worker starts: its configuration, and the first weights or the last checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero

from jobs.training.messages import Mailbox, PrecisionsTimed
from jobs.training.worker.precision import choose_precision
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.pretrained import load_weights
from pneumonia_core.training.checkpoint import Checkpoint, InitialState, load_checkpoint
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.loss import ClassWeights
from pneumonia_core.training.recipe import Recipe, check_first_stage, first_fresh_stage, first_trained_stage


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver gives every worker.

    The references are to arrays in the object store: `sample`, some training images uint8 [N, H, W], and the
    labels of validation; its images stay in their blocks. A worker has `gpus` GPUs. Within an epoch there is
    a checkpoint every `checkpoint_s`.
    """

    recipe: Recipe
    gpus: int
    steps_per_epoch: int
    class_weights: ClassWeights
    sample: "ray.ObjectRef[Any]"
    validation_images: ImageParts
    validation_labels: "ray.ObjectRef[Any]"
    mailbox: Mailbox
    checkpoint_s: float


@dataclass(frozen=True)
class FirstWeights:
    """The initial state of a new training, and the classifier's weights in Keras's order."""

    initial: InitialState
    weights: list[np.ndarray]


def last_checkpoint() -> Checkpoint | None:
    """The checkpoint that Ray Train resumes from; None for a new training."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return load_checkpoint(Path(folder))


def first_weights(config: WorkerConfig, rank: int) -> FirstWeights:
    """The start of a new training; a collective operation.

    Rank 0 makes it for all: the others may have no internet, or other random numbers.
    """
    made = None
    if rank == 0:
        start = _make_first_weights(config)
        made = {"initial": start.initial, "weights": ray.put(start.weights)}
    made = broadcast_from_rank_zero(made)
    return FirstWeights(made["initial"], list(ray.get(made["weights"])))


def _make_first_weights(config: WorkerConfig) -> FirstWeights:
    recipe = config.recipe
    classifier = build_classifier(recipe.network, recipe.image_size)
    loaded = load_weights(classifier, recipe.weights, ray.get(config.sample))
    check_first_stage(recipe, loaded.stages)
    first_stage = recipe.train_from or first_trained_stage(loaded.stages)
    initial = InitialState(
        recipe=replace(recipe, precision=_precision(config, first_stage)),
        first_stage=first_stage,
        fresh_from=first_fresh_stage(loaded.stages),
        loaded_layers=len(loaded.layers),
    )
    return FirstWeights(initial, classifier.get_weights())


def _precision(config: WorkerConfig, first_stage: str) -> str:
    precision, seconds = choose_precision(config.recipe, first_stage, config.steps_per_epoch)
    if seconds is not None:
        config.mailbox.post(PrecisionsTimed(seconds))
    return precision
