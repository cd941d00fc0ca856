"""A training under Ray Train, watched from the driver."""

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.console.output import Progress, say
from jobs.training.folder import TrainingRun
from jobs.training.images import LabelledImages
from jobs.training.initial_state import WorkerConfig
from jobs.training.messages import open_events
from jobs.training.placement import TrainingPlacement
from jobs.training.tensorboard import EventLog, grid, write_epoch
from jobs.training.worker import train_on_worker
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.storage.arrow import arrow_file_system
from pneumonia_core.training.checkpoint import weights_of
from pneumonia_core.training.recipe import Recipe, best_epoch, class_weights, stopped_early

SAMPLE_IMAGES = 64
CHECKPOINTS_KEPT = 2
LOST_WORKERS_ALLOWED = 10
HEALTH_TIMEOUT_S = 120
POLL_S = 0.3
PATIENCE_S = 90
SILENCE_S = 300


@dataclass(frozen=True)
class Trained:
    """What came out: the averaged weights in Keras's order, the figures of each epoch, how it began."""

    weights: list[np.ndarray]
    history: list[dict[str, Any]]
    recipe: Recipe
    first_stage: str


def run_training(
    recipe: Recipe,
    training: LabelledImages,
    validation_images: np.ndarray,
    validation_labels: np.ndarray,
    workers: TrainingPlacement,
    run: TrainingRun,
    log: EventLog,
) -> Trained:
    """Train and give the averaged weights of the last epoch, or of the best one where patience ran out. Raises
    PneumoniaError when it fails."""
    import ray

    board = open_events()
    assignment = WorkerConfig(
        recipe=recipe,
        gpus=workers.gpus,
        steps_per_epoch=max(1, len(training.labels) // recipe.batch_size),
        class_weights=class_weights(training.labels),
        sample=ray.put(training.images(SAMPLE_IMAGES)),
        validation_images=ray.put(validation_images),
        validation_labels=ray.put(validation_labels),
        board=board,
    )
    fit = FitThread(_trainer(assignment, training, workers, run))
    with Monitor(board, assignment, workers, validation_labels, log) as watch:
        while not fit.done.wait(POLL_S):
            watch.look()
        watch.look()
    failure = ray.get(board.failure.remote())
    if failure is not None:
        raise _as_error(failure, run)
    if fit.error is not None:
        raise PneumoniaError(
            f"the training was interrupted by lost workers or their storage ({_headline(fit.error)}). "
            f"The same command with --resume --name {run.name} goes on from the last epoch."
        ) from fit.error
    return _trained(fit.result.checkpoint)


def _trainer(
    assignment: WorkerConfig, training: LabelledImages, workers: TrainingPlacement, run: TrainingRun
) -> Any:
    # Workers that hang in a collective operation are noticed by this timeout.
    os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(HEALTH_TIMEOUT_S))
    from ray.data import ExecutionOptions
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    # Otherwise the batches of an epoch come in the order in which threads made them ready, whatever the seed.
    in_order = DataConfig(execution_options=ExecutionOptions(preserve_order=True))
    resources = {"CPU": workers.cpus, **({"GPU": float(workers.gpus)} if workers.gpus else {})}
    loop: Any = train_on_worker  # Ray's annotation has no return value; Ray itself takes one
    return TensorflowTrainer(
        loop,
        train_loop_config={"assignment": assignment},
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker=resources,
            placement_strategy="PACK" if workers.gpus else "SPREAD",
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
    """`trainer.fit()` in a thread, so that the driver can talk meanwhile and Ctrl-C ends it at once."""

    def __init__(self, trainer: Any) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.done = threading.Event()
        self._trainer = trainer
        threading.Thread(target=self._run, name="fit", daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._trainer.fit()
        except Exception as error:  # noqa: BLE001 - pydicom may raise anything, with values of the file in its text
            self.error = error
        finally:
            self.done.set()


class Monitor:
    """Reads the board and tells a person and TensorBoard what is on it."""

    def __init__(
        self,
        board: Any,
        assignment: WorkerConfig,
        workers: TrainingPlacement,
        labels: np.ndarray,
        log: EventLog,
    ) -> None:
        recipe = assignment.recipe
        self._board, self._workers, self._labels, self._log = board, workers, labels, log
        self._per_step, self._per_epoch = recipe.batch_size, recipe.batch_size * assignment.steps_per_epoch
        self._epochs, self._starts = recipe.epochs, 0
        self._progress = Progress(recipe.epochs * self._per_epoch, "images", "training")
        self._epoch_began = time.monotonic()
        self._patient_until = self._epoch_began + PATIENCE_S

    def __enter__(self) -> "Monitor":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def look(self) -> None:
        import ray

        tell = {
            "start": self._start,
            "head": self._head,
            "inputs": self._inputs,
            "step": self._step,
            "epoch": self._epoch,
        }
        for note in ray.get(self._board.take.remote()):
            tell[note["kind"]](note)
            self._patient_until = time.monotonic() + SILENCE_S
        if time.monotonic() > self._patient_until:
            self._patient_until = float("inf")
            self._wonder()

    def _wonder(self) -> None:
        workers = (
            f"{self._workers.count} workers of {self._workers.cpus:g} CPUs"
            f"{f' and {self._workers.gpus} GPUs' if self._workers.gpus else ''} each"
        )
        if self._starts:
            say(
                f"no word of the workers for {SILENCE_S} s: does one of {workers} wait for a node that was lost?"
            )
        else:
            say(f"still waiting for {workers}: is the cluster busy or growing?")

    def _start(self, note: dict[str, Any]) -> None:
        self._starts += 1
        self._epoch_began = time.monotonic()
        recipe = note["recipe"]
        if self._starts > 1:
            say(f"workers were lost: training goes on after epoch {note['epoch']}")
        else:
            origin = (
                f"{note['loaded_layers']} layers from {recipe['weights']}"
                if note["loaded_layers"]
                else "fresh"
            )
            say(
                f"{recipe['network']} ({origin}) trains from {note['first_stage']} on in "
                f"{recipe['precision'].replace('_', ' ')}"
                + (f", going on after epoch {note['epoch']}" if note["epoch"] else "")
            )
        self._advance_to(note["epoch"] * self._per_epoch)

    def _head(self, note: dict[str, Any]) -> None:
        say(
            f"a head fitted to the features of {note['images']:,} images as they are: {_aurocs(note)}, "
            f"{time.monotonic() - self._epoch_began:.0f} s"
        )
        self._epoch_began = time.monotonic()

    def _inputs(self, note: dict[str, Any]) -> None:
        self._log.image(0, "inputs", grid(note["images"]))

    def _step(self, note: dict[str, Any]) -> None:
        done = (note["epoch"] - 1) * self._per_epoch + note["step"] * self._per_step
        self._advance_to(done, epoch=f"{note['epoch']}/{self._epochs}", loss=f"{note['loss']:.3f}")

    def _epoch(self, note: dict[str, Any]) -> None:
        seconds, self._epoch_began = time.monotonic() - self._epoch_began, time.monotonic()
        self._advance_to(note["epoch"] * self._per_epoch)
        say(
            f"epoch {note['epoch']} of {self._epochs}: loss {note['loss']:.3f}, {_aurocs(note)}, "
            f"{note['images_per_s']:.1f} images/s, {seconds:.0f} s"
        )
        write_epoch(self._log, note["epoch"], note, self._labels)

    def _advance_to(self, images: int, **facts: object) -> None:
        self._progress.advance(images - self._progress.done, **facts)


def _trained(checkpoint: Any) -> Trained:
    with checkpoint.as_directory() as folder:
        document = json.loads((Path(folder) / "state.json").read_text(encoding="utf-8"))
        recipe, history = Recipe(**document["recipe"]), document["history"]
        early = stopped_early(recipe, history)
        if early:
            say(f"no better epoch since epoch {best_epoch(history)}: its weights are kept")
        with np.load(Path(folder) / "state.npz", allow_pickle=False) as file:
            weights = weights_of("best" if early else "averaged", file)
    return Trained(weights, history, recipe, document["first_stage"])


def _aurocs(note: dict[str, Any]) -> str:
    return (
        f"validation AUROC {note['auroc_pneumonia']:.4f} pneumonia vs normal, {note['auroc_bacterial']:.4f} "
        "bacterial vs viral"
    )


def _as_error(failure: dict[str, Any], run: TrainingRun) -> PneumoniaError:
    if failure["trace"] is None:
        kind = InvalidInput if failure["exit_code"] == InvalidInput.exit_code else PneumoniaError
        return kind(failure["text"])
    trace = run.keep_trace(failure["trace"])
    return PneumoniaError(
        f"the training failed and would fail again: {failure['text']}. The traceback is in {trace.path}."
    )


def _headline(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
