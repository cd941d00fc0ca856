"""Checkpoints of a training: when all workers make one, and how it gets to Ray Train."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import ray.train

from pneumonia_core.training.checkpoint import Checkpoint, save_checkpoint
from pneumonia_core.training.history import EpochProgress

# A checkpoint is late by at most this share of the interval, as long as the steps keep their rate.
_LATE: Final = 0.1


class CheckpointClock:
    """Tells all workers alike whether `interval_s` have passed since the last checkpoint.

    A checkpoint waits for all workers, and their clocks differ: so the first one's counts. To ask it after
    every step would leave the devices idle. It therefore says after how many steps they ask again. `total` is
    Learner.total.
    """

    def __init__(self, interval_s: float, is_first: bool, total: Callable[[np.ndarray], np.ndarray]) -> None:
        self._interval_s, self._is_first, self._total = interval_s, is_first, total
        self._last = time.monotonic()

    def restart(self) -> None:
        """Count the time from now on."""
        self._last = time.monotonic()

    def ask(self, done: EpochProgress) -> tuple[bool, int]:
        """Whether a checkpoint is due, and the steps until the next question; a collective operation."""
        answer = np.array(self._answer(done) if self._is_first else (0, 0), np.float64)
        is_due, steps = self._total(answer)
        return bool(is_due), int(steps)

    def _answer(self, done: EpochProgress) -> tuple[bool, int]:
        left_s = self._interval_s - (time.monotonic() - self._last)
        is_due = left_s <= 0
        most_s = self._interval_s * _LATE
        ahead_s = most_s if is_due else min(left_s, most_s)
        # The rate of few steps says little, so at most as many again.
        fitting = int(done.timed_steps * min(1.0, ahead_s / max(done.seconds, 1e-9)))
        return is_due, max(1, fitting)


def report_checkpoint(checkpoint: Checkpoint, is_first: bool, metrics: Mapping[str, object]) -> None:
    """Report `metrics` to Ray Train, from the first worker with the checkpoint; all wait for each other."""
    if not is_first:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), checkpoint)
        ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint.from_directory(folder))
