"""The driver's view of a running training: reads the mailbox, and reports to a person and to TensorBoard."""

import time
from typing import Final

import numpy as np

from jobs.console.output import Progress, say
from jobs.training.messages import (
    EpochDone,
    HeadFitted,
    InputsShown,
    Message,
    NotCompiled,
    PrecisionsTimed,
    Started,
    StepDone,
)
from jobs.training.placement import TrainingPlacement
from jobs.training.tensorboard import EventLog, grid, write_epoch
from jobs.training.worker.initial_state import WorkerConfig

# The longest time without a message before the driver warns: at first, and after any message.
START_PATIENCE_S: Final = 90
SILENCE_S: Final = 300


class Monitor:
    """Reports each message of the workers, and warns once when none comes for long.

    `labels` int [N] are those of the validation images. `progress` counts training images.
    """

    def __init__(
        self,
        config: WorkerConfig,
        placement: TrainingPlacement,
        labels: np.ndarray,
        log: EventLog,
        progress: Progress,
    ) -> None:
        recipe = config.recipe
        self._mailbox, self._placement, self._labels, self._log = config.mailbox, placement, labels, log
        self._per_step, self._per_epoch = recipe.batch_size, recipe.batch_size * config.steps_per_epoch
        self._epochs, self._starts = recipe.epochs, 0
        self._progress = progress
        self._epoch_began = time.monotonic()
        self._patient_until = self._epoch_began + START_PATIENCE_S

    def look(self) -> None:
        """Report the messages since the last look."""
        for message in self._mailbox.take():
            self._report(message)
            self._patient_until = time.monotonic() + SILENCE_S
        if time.monotonic() > self._patient_until:
            self._patient_until = float("inf")
            self._warn_silence()

    def _report(self, message: Message) -> None:
        match message:
            case Started():
                self._report_start(message)
            case PrecisionsTimed(seconds):
                timed = ", ".join(
                    f"{each:.2f} s in {name.replace('_', ' ')}" for name, each in seconds.items()
                )
                say(f"timed on a few images: {timed}")
            case NotCompiled(reason):
                say(f"XLA compiles nothing for the GPUs, so that steps take longer: {reason}")
            case HeadFitted(images, figures):
                say(
                    f"a head fitted to the features of {images:,} images as they are: {figures.describe()}, "
                    f"{self._lap_s():.0f} s"
                )
            case InputsShown(images):
                self._log.image(0, "inputs", grid(images))
            case StepDone(epoch, step, loss):
                done = (epoch - 1) * self._per_epoch + step * self._per_step
                self._advance_to(done, epoch=f"{epoch}/{self._epochs}", loss=f"{loss:.3f}")
            case EpochDone():
                self._report_epoch(message)

    def _report_start(self, message: Started) -> None:
        self._starts += 1
        self._lap_s()
        initial = message.initial
        if self._starts > 1:
            say(f"workers were lost: training goes on after {_place(message)}")
        else:
            loaded = f"{initial.loaded_layers} layers from {initial.recipe.weights}"
            say(
                f"{initial.recipe.network} ({loaded if initial.loaded_layers else 'fresh'}) trains from "
                f"{initial.first_stage} on in {initial.recipe.precision.replace('_', ' ')}"
                + (f", going on after {_place(message)}" if message.epoch or message.step else "")
            )
        self._advance_to(message.epoch * self._per_epoch + message.step * self._per_step)

    def _report_epoch(self, message: EpochDone) -> None:
        figures, seconds = message.figures, self._lap_s()
        self._advance_to(figures.epoch * self._per_epoch)
        say(
            f"epoch {figures.epoch} of {self._epochs}: loss {figures.loss:.3f}, {figures.describe()}, "
            f"{figures.images_per_s:.1f} images/s, {seconds:.0f} s"
        )
        write_epoch(self._log, message, self._labels)

    def _warn_silence(self) -> None:
        each = self._placement
        gpus = f" and {each.gpus} GPUs" if each.gpus else ""
        workers = f"{each.count} workers of {each.cpus:g} CPUs{gpus} each"
        if self._starts:
            say(f"no progress for {SILENCE_S} s: a worker may be waiting for a lost node ({workers})")
        else:
            say(f"still waiting for {workers}: the cluster may be busy or growing")

    def _lap_s(self) -> float:
        """Seconds since the last lap."""
        began, self._epoch_began = self._epoch_began, time.monotonic()
        return self._epoch_began - began

    def _advance_to(self, images: int, **shown: object) -> None:
        self._progress.advance(images - self._progress.done, **shown)


def _place(started: Started) -> str:
    """Where the workers start."""
    if started.step:
        return f"step {started.step:,} of epoch {started.epoch + 1}"
    return f"epoch {started.epoch}"
