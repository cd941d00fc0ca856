"""What Ray Train runs on each worker: epochs of steps, validation, checkpoints."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

import keras
import numpy as np
import ray
import ray.train
import tensorflow as tf
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
from jobs.training.worker.batches import Share, prefetched, training_batches
from jobs.training.worker.checkpoints import CheckpointClock, report_checkpoint
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
from pneumonia_core.training.checkpoint import Checkpoint, InitialState
from pneumonia_core.training.history import (
    NOT_BEGUN,
    EpochFigures,
    EpochProgress,
    TrainingFigures,
    ValidationFigures,
    best_epoch,
    is_over,
)
from pneumonia_core.training.learner import Learner, TrainingBatch
from pneumonia_core.training.linear_probe import fit_linear_probe
from pneumonia_core.training.loss import HierarchicalLoss
from pneumonia_core.training.recipe import Recipe
from pneumonia_core.training.validation import ValidationShard

SHOWN_IMAGES: Final = 16


@dataclass(frozen=True)
class Worker:
    """One of several workers. `recipe` has no open choices; `share` are this worker's training images."""

    config: WorkerConfig
    recipe: Recipe
    share: Share

    @property
    def world(self) -> int:
        return self.share.world

    @property
    def is_first(self) -> bool:
        """Whether this worker writes checkpoints and messages."""
        return self.share.rank == 0


@dataclass(frozen=True)
class TrainingState:
    """A learner, with the history and the best weights of its epochs, and the progress of the next one."""

    initial: InitialState
    learner: Learner
    history: tuple[EpochFigures, ...] = ()
    best: Sequence[np.ndarray] = ()
    progress: EpochProgress = NOT_BEGUN

    @property
    def is_new(self) -> bool:
        """Whether no step was taken before."""
        return not self.history and not self.progress.steps

    def after_epoch(self, trained: TrainingFigures, validated: ValidationFigures) -> Self:
        """The state after the epoch with these figures."""
        history = (*self.history, EpochFigures.of(len(self.history) + 1, trained, validated))
        # Only a training that may end before its schedule needs its best epoch again.
        is_best = self.initial.recipe.patience and best_epoch(history) == len(history)
        best = self.learner.averaged.get_weights() if is_best else self.best
        return replace(self, history=history, best=best, progress=NOT_BEGUN)

    def checkpoint(self, arrays: Mapping[str, np.ndarray]) -> Checkpoint:
        """A checkpoint with this state of the learner."""
        return Checkpoint(self.initial, self.history, arrays, self.best, self.progress)


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
    state = _start(config, rank, strategy)
    # A thread keeps up with one GPU, not with all of a node.
    share = Share(ray.train.get_dataset_shard("train"), rank, world, threads=max(1, config.gpus))
    worker = Worker(config, state.initial.recipe, share)
    labels = ray.get(config.validation_labels)
    validation = ValidationShard(config.validation_images, labels, rank, world)
    if worker.is_first:
        config.mailbox.post(Started(state.initial, len(state.history), state.progress.steps))
    if state.is_new and state.initial.fresh_from == "head":
        _fit_head(worker, state.learner, validation)
    _train_epochs(worker, state, validation)


def _start(config: WorkerConfig, rank: int, strategy: tf.distribute.Strategy) -> TrainingState:
    """The start from the last checkpoint, else a new one; a collective operation.

    The arrays of a checkpoint are several times as large as the network, and are not kept.
    """
    checkpoint = last_checkpoint()
    if checkpoint is None:
        first = first_weights(config, rank)
        return TrainingState(first.initial, _learner(config, first.initial, first.weights, strategy))
    learner = _learner(config, checkpoint.initial, checkpoint.classifier_weights, strategy)
    learner.restore(checkpoint.state, rank)
    return TrainingState(
        checkpoint.initial, learner, checkpoint.history, checkpoint.best, checkpoint.progress
    )


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
    batches = worker.share.shard.iter_batches(
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


def _train_epochs(worker: Worker, state: TrainingState, validation: ValidationShard) -> None:
    learner = state.learner
    clock = CheckpointClock(worker.config.checkpoint_s, worker.is_first, learner.total)
    while not is_over(worker.recipe, state.history):
        trained = _train_epoch(worker, state, clock)
        learner.share_statistics()
        validated = validation.measure(learner)
        state = state.after_epoch(trained, validated.figures)
        figures = state.history[-1]
        report_checkpoint(state.checkpoint(learner.state()), worker.is_first, asdict(figures))
        clock.restart()
        if worker.is_first:
            worker.config.mailbox.post(EpochDone(figures, validated.probabilities))


def _train_epoch(worker: Worker, state: TrainingState, clock: CheckpointClock) -> TrainingFigures:
    """Train the rest of an epoch. Raises PneumoniaError when the loss diverges."""
    learner, recipe, config = state.learner, worker.recipe, worker.config
    epoch, before = len(state.history), state.progress

    def report(step: int, loss: float) -> None:
        config.mailbox.post(StepDone(epoch + 1, step, loss * worker.world))

    def pause(done: EpochProgress) -> int:
        is_due, steps = clock.ask(done)
        if is_due:
            within = replace(state, progress=_of_all_workers(learner, epoch, done))
            metrics = {"epoch": epoch + 1, "step": done.steps}
            report_checkpoint(within.checkpoint(learner.shared_state()), worker.is_first, metrics)
            clock.restart()
        return steps

    batches = training_batches(worker.share, recipe, epoch, config.steps_per_epoch, before.steps)
    with closing(prefetched(batches)) as ready:
        shown = _showing_first(ready, worker, learner) if worker.is_first and state.is_new else ready
        # The loss so far is that of all workers, and counts once.
        own = before if worker.is_first else replace(before, loss=0.0)
        done = take_steps(
            learner, shown, config.steps_per_epoch, report if worker.is_first else None, own, pause
        )
    return TrainingFigures.of(_of_all_workers(learner, epoch, done), learner.learning_rate, recipe.batch_size)


def _of_all_workers(learner: Learner, epoch: int, done: EpochProgress) -> EpochProgress:
    """The same with the loss of all workers; a collective operation.

    Raises PneumoniaError when it diverges.
    """
    loss = float(learner.total(np.float64(done.loss)))
    if not np.isfinite(loss):
        raise PneumoniaError(
            f"the loss of epoch {epoch + 1} is not a number: the network diverged. Lower --learning-rate."
        )
    return replace(done, loss=loss)


def _showing_first(
    batches: Iterator[TrainingBatch], worker: Worker, learner: Learner
) -> Iterator[TrainingBatch]:
    """The same batches; the driver gets to see images of the first."""
    first = next(batches)
    worker.config.mailbox.post(InputsShown(learner.augmented(first.first(SHOWN_IMAGES))))
    yield first
    yield from batches


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
