"""A training under Ray Train, started and watched by the driver."""

import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import ray
from ray.data import ExecutionOptions
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    DataConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
)
from ray.train.tensorflow import TensorflowTrainer

from jobs.console.output import Progress, say
from jobs.training.data import TrainingData
from jobs.training.folder import TrainingRun
from jobs.training.images import LabelledImages
from jobs.training.messages import PermanentFailure, open_mailbox
from jobs.training.monitor import Monitor
from jobs.training.placement import TrainingPlacement
from jobs.training.tensorboard import EventLog
from jobs.training.worker.initial_state import WorkerConfig
from jobs.training.worker.loop import train_on_worker
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.storage.arrow import arrow_file_system
from pneumonia_core.training.checkpoint import load_checkpoint
from pneumonia_core.training.history import EpochFigures, best_epoch, stopped_early
from pneumonia_core.training.loss import ClassWeights
from pneumonia_core.training.recipe import Recipe, steps_per_epoch

SAMPLE_IMAGES: Final = 64
CHECKPOINTS_KEPT: Final = 2
LOST_WORKERS_ALLOWED: Final = 10
POLL_S: Final = 0.3


@dataclass(frozen=True)
class Trained:
    """The result of a training: the weights to release in Keras's order, its history and its settings."""

    weights: list[np.ndarray]
    history: tuple[EpochFigures, ...]
    recipe: Recipe
    first_stage: str
    class_weights: ClassWeights


def run_training(
    recipe: Recipe,
    data: TrainingData,
    placement: TrainingPlacement,
    run: TrainingRun,
    log_folder: Path,
    checkpoint_s: float,
) -> Trained:
    """Train, with a checkpoint after each epoch and every `checkpoint_s` within one.

    TensorBoard events go to `log_folder`. Raises PneumoniaError when the training fails.
    """
    config = WorkerConfig(
        recipe=recipe,
        gpus=placement.gpus,
        steps_per_epoch=steps_per_epoch(recipe, len(data.training.labels)),
        class_weights=ClassWeights.balanced(data.training.labels),
        sample=ray.put(data.training.images.first(SAMPLE_IMAGES)),
        validation_images=data.validation.images,
        validation_labels=ray.put(data.validation.labels),
        mailbox=open_mailbox(),
        checkpoint_s=checkpoint_s,
    )
    images = recipe.epochs * recipe.batch_size * config.steps_per_epoch
    with (
        closing(EventLog(log_folder, fresh=not run.has_checkpoint)) as log,
        Progress(images, "images", "training") as progress,
    ):
        monitor = Monitor(config, placement, data.validation.labels, log, progress)
        fit = FitThread(_trainer(config, data.training, placement, run))
        while not fit.done.wait(POLL_S):
            monitor.look()
        monitor.look()
    failure = config.mailbox.failure()
    if failure is not None:
        raise _as_error(failure, run)
    if fit.error is not None:
        raise PneumoniaError(
            f"the training was interrupted by lost workers or their storage ({_headline(fit.error)}). "
            f"The same command with --resume --name {run.command_name} continues from the last checkpoint."
        ) from fit.error
    assert fit.result is not None
    assert fit.result.checkpoint is not None
    return _trained(fit.result.checkpoint, config.class_weights)


def _trainer(
    config: WorkerConfig, training: LabelledImages, placement: TrainingPlacement, run: TrainingRun
) -> TensorflowTrainer:
    # Otherwise the batches of an epoch come in the order in which threads finish them, whatever the seed.
    in_order = DataConfig(execution_options=ExecutionOptions(preserve_order=True))
    resources = {"CPU": placement.cpus, **({"GPU": float(placement.gpus)} if placement.gpus else {})}
    return TensorflowTrainer(
        train_on_worker,
        train_loop_config={"worker_config": config},
        scaling_config=ScalingConfig(
            num_workers=placement.count,
            use_gpu=placement.gpus > 0,
            resources_per_worker=resources,
            placement_strategy="PACK" if placement.gpus else "SPREAD",
        ),
        datasets={"train": training.dataset},
        dataset_config=in_order,
        run_config=RunConfig(
            name=run.name,
            storage_path=run.storage.path,
            storage_filesystem=arrow_file_system(run.storage.uri),
            failure_config=FailureConfig(max_failures=LOST_WORKERS_ALLOWED),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
        ),
    )


class FitThread:
    """`trainer.fit()` in a thread, so that the driver can report progress and Ctrl-C ends it at once."""

    def __init__(self, trainer: TensorflowTrainer) -> None:
        self.result: Result | None = None
        self.error: Exception | None = None
        self.done = threading.Event()
        self._trainer = trainer
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._trainer.fit()
        except Exception as error:  # noqa: BLE001 - Ray Train raises many types; the driver reports each
            self.error = error
        finally:
            self.done.set()


def _trained(checkpoint: Checkpoint, class_weights: ClassWeights) -> Trained:
    with checkpoint.as_directory() as folder:
        last = load_checkpoint(Path(folder))
    recipe, history = last.initial.recipe, last.history
    if stopped_early(recipe, history):
        say(f"no better epoch since epoch {best_epoch(history)}: its weights are kept")
    return Trained(last.released_weights(), history, recipe, last.initial.first_stage, class_weights)


def _as_error(failure: PermanentFailure, run: TrainingRun) -> PneumoniaError:
    if failure.trace is None:
        kind = InvalidInput if failure.is_invalid_input else PneumoniaError
        return kind(failure.text, failure.remedy)
    trace = run.keep_trace(failure.trace)
    return PneumoniaError(
        f"the training failed and would fail again: {failure.text}. The traceback is in {trace.path}."
    )


def _headline(error: Exception) -> str:
    """The first line of an error, shortened."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
