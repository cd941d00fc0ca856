"""What Ray Train runs on each worker: epochs of steps, validation, and a checkpoint after each epoch."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import keras
import numpy as np
import ray
import ray.train
import tensorflow as tf
from ray.data import DataIterator
from ray.exceptions import RayError

from jobs.training.messages import (
    EpochDone,
    HeadFitted,
    InputsShown,
    NotCompiled,
    PermanentFailure,
    Started,
    StepDone,
)
from jobs.training.worker.batches import batches_of_epoch, prefetched
from jobs.training.worker.devices import (
    communication,
    set_up_devices,
    shares_moments,
    threads_of_worker,
    xla_error,
)
from jobs.training.worker.initial_state import WorkerConfig, first_weights, last_checkpoint
from jobs.training.worker.steps import take_steps
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.training.augment import augmentation_of, draw, reencode_some
from pneumonia_core.training.checkpoint import Checkpoint, InitialState, save_checkpoint
from pneumonia_core.training.history import EpochFigures, TrainingFigures, best_epoch, is_over
from pneumonia_core.training.learner import Learner, TrainingBatch
from pneumonia_core.training.linear_probe import fit_linear_probe
from pneumonia_core.training.loss import HierarchicalLoss
from pneumonia_core.training.recipe import Recipe
from pneumonia_core.training.validation import ValidationShard

SHOWN_IMAGES: Final = 16


@dataclass(frozen=True)
class Worker:
    """One of `world` workers. `recipe` has no open choices; `shard` are this worker's training images."""

    rank: int
    world: int
    config: WorkerConfig
    recipe: Recipe
    shard: DataIterator

    @property
    def is_first(self) -> bool:
        """Whether this worker writes checkpoints and messages."""
        return self.rank == 0


@dataclass(frozen=True)
class Start:
    """A learner, with the history and the best weights of the epochs before it; a new training has none."""

    initial: InitialState
    learner: Learner
    history: tuple[EpochFigures, ...] = ()
    best: Sequence[np.ndarray] = ()


def train_on_worker(config: dict[str, WorkerConfig]) -> None:
    """Train this worker's part of `config["worker_config"]`.

    A lost worker or network is raised: Ray Train then starts all workers again from the last checkpoint. A
    permanent failure is reported first; workers started later see it and return at once.
    """
    worker_config = config["worker_config"]
    if worker_config.mailbox.failure() is not None:
        return
    try:
        _train(worker_config)
    except Exception as error:
        if not _is_transient(error):
            worker_config.mailbox.report_permanent_failure(PermanentFailure.of(error))
        raise


def _train(config: WorkerConfig) -> None:
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    set_up_devices(threads_of_worker(context.get_local_world_size()), config.gpus)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=communication(config.gpus))
    keras.utils.set_random_seed(config.recipe.seed + rank)
    start = _start(config, rank, strategy)
    worker = Worker(rank, world, config, start.initial.recipe, ray.train.get_dataset_shard("train"))
    images, labels = ray.get([config.validation_images, config.validation_labels])
    validation = ValidationShard.of(images, labels, rank, world)
    if worker.is_first:
        config.mailbox.post(Started(start.initial, len(start.history)))
    if not start.history and start.initial.fresh_from == "head":
        _fit_head(worker, start.learner, validation)
    _train_epochs(worker, start, validation)


def _start(config: WorkerConfig, rank: int, strategy: tf.distribute.Strategy) -> Start:
    """The start from the last checkpoint, else a new one; a collective operation.

    The arrays of a checkpoint are several times as large as the network, and are not kept.
    """
    checkpoint = last_checkpoint()
    if checkpoint is None:
        first = first_weights(config, rank)
        return Start(first.initial, _learner(config, first.initial, first.weights, strategy))
    learner = _learner(config, checkpoint.initial, checkpoint.classifier_weights, strategy)
    learner.restore(checkpoint.state, rank)
    return Start(checkpoint.initial, learner, checkpoint.history, checkpoint.best)


def _learner(
    config: WorkerConfig,
    initial: InitialState,
    weights: Sequence[np.ndarray],
    strategy: tf.distribute.Strategy,
) -> Learner:
    why_not = xla_error() if config.gpus else None
    if why_not is not None:
        config.mailbox.post(NotCompiled(why_not))
    return Learner(
        initial.recipe,
        weights,
        initial.first_stage,
        config.class_weights,
        config.steps_per_epoch,
        strategy,
        shared_moments=shares_moments(initial.recipe.batch_size, strategy.num_replicas_in_sync, config.gpus),
        compiled=config.gpus > 0 and why_not is None,
    )


def _fit_head(worker: Worker, learner: Learner, validation: ValidationShard) -> None:
    """Give the learner a head that fits its loaded trunk; a collective operation."""
    recipe = worker.recipe
    nothing = np.zeros((0, recipe.image_size, recipe.image_size), np.uint8)
    features, labels = [learner.averaged.features(nothing)], [np.zeros(0, np.int64)]
    batches = worker.shard.iter_batches(
        batch_size=recipe.batch_size, batch_format="numpy", prefetch_batches=2
    )
    for batch in batches:
        features.append(learner.averaged.features(batch["image"]))
        labels.append(batch["label"])
    kernel, bias = fit_linear_probe(
        np.concatenate(features),
        np.concatenate(labels),
        HierarchicalLoss.of(recipe, worker.config.class_weights),
        learner.total,
    )
    learner.set_head(kernel, bias)
    images = int(learner.total(np.float64(sum(map(len, labels)))))
    figures = validation.measure(learner).figures
    if worker.is_first:
        worker.config.mailbox.post(HeadFitted(images, figures))


def _train_epochs(worker: Worker, start: Start, validation: ValidationShard) -> None:
    learner, history, best = start.learner, start.history, start.best
    while not is_over(worker.recipe, history):
        trained = _train_epoch(worker, learner, len(history))
        learner.share_statistics()
        validated = validation.measure(learner)
        history = (*history, EpochFigures.of(len(history) + 1, trained, validated.figures))
        # Only a training that may end before its schedule needs its best epoch again.
        if worker.recipe.patience and best_epoch(history) == len(history):
            best = learner.averaged.get_weights()
        _report(worker, Checkpoint(start.initial, history, learner.state(), best))
        if worker.is_first:
            worker.config.mailbox.post(EpochDone(history[-1], validated.probabilities))


def _train_epoch(worker: Worker, learner: Learner, epoch: int) -> TrainingFigures:
    """Train for one epoch, counted from 0. Raises PneumoniaError when the loss diverges."""
    steps, mailbox = worker.config.steps_per_epoch, worker.config.mailbox

    def report(step: int, loss: float) -> None:
        mailbox.post(StepDone(epoch + 1, step, loss * worker.world))

    with closing(prefetched(_batches(worker, epoch))) as batches:
        shown = _showing_first(batches, worker, learner) if worker.is_first and epoch == 0 else batches
        done = take_steps(learner, shown, steps, report if worker.is_first else None)
    loss = float(learner.total(np.float64(done.loss))) / steps
    if not np.isfinite(loss):
        raise PneumoniaError(
            f"the loss of epoch {epoch + 1} is not a number: the network diverged. Lower --learning-rate."
        )
    images_per_s = (steps - 1) * worker.recipe.batch_size / done.seconds if steps > 1 else 0.0
    return TrainingFigures(loss, learner.learning_rate, images_per_s, done.waited_s)


def _showing_first(
    batches: Iterator[TrainingBatch], worker: Worker, learner: Learner
) -> Iterator[TrainingBatch]:
    """The same batches; the driver gets to see images of the first."""
    first = next(batches)
    worker.config.mailbox.post(InputsShown(learner.augmented(first.first(SHOWN_IMAGES))))
    yield first
    yield from batches


def _batches(worker: Worker, epoch: int) -> Iterator[TrainingBatch]:
    """This worker's batches of an epoch, with the parameters of their augmentation."""
    recipe, strength = worker.recipe, augmentation_of(worker.recipe)
    rng = np.random.default_rng([recipe.seed, epoch, worker.rank])
    size = recipe.batch_size // worker.world
    steps = worker.config.steps_per_epoch
    for images, labels in batches_of_epoch(worker.shard, size, steps, recipe.seed + epoch):
        # A thread keeps up with one GPU, not with all of a node.
        reencoded = reencode_some(images, rng, strength, threads=max(1, worker.config.gpus))
        variation = draw(rng, size, recipe.image_size, strength)
        yield TrainingBatch(reencoded, labels.astype(np.int32), variation)


def _report(worker: Worker, checkpoint: Checkpoint) -> None:
    """Report an epoch to Ray Train, from rank 0 with its checkpoint; all workers wait for each other."""
    if not worker.is_first:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), checkpoint)
        figures = asdict(checkpoint.history[-1])
        ray.train.report(figures, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _is_transient(error: Exception) -> bool:
    """Whether a new attempt may succeed: after a lost peer, network or disk, not after a wrong value."""
    if isinstance(error, PneumoniaError):
        return False
    if isinstance(error, tf.errors.OpError):
        permanent = (
            tf.errors.InvalidArgumentError,
            tf.errors.ResourceExhaustedError,
            tf.errors.UnimplementedError,
        )
        return not isinstance(error, permanent)
    return isinstance(error, (RayError, ConnectionError, TimeoutError, OSError))
