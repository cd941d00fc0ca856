"""The steps of an epoch on one worker, without a wait for the device after each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from pneumonia_core.training.learner import Learner, TrainingBatch

PROGRESS_INTERVAL_S: Final = 2.0


@dataclass(frozen=True)
class StepsDone:
    """The sum of a worker's losses; its seconds from the end of the first step on, and those of waiting.

    The first step also compiles, and its batch is the first that the input gives.
    """

    loss: float
    seconds: float
    waited_s: float


def take_steps(
    learner: Learner,
    batches: Iterator[TrainingBatch],
    steps: int,
    report: Callable[[int, float], None] | None = None,
) -> StepsDone:
    """Train on the next `steps` batches.

    `report` gets the number of a step, counted from 1, and this worker's part of its loss, every few seconds.
    Only then, after the first step and at the end is a loss fetched: a GPU would otherwise be idle after each
    step until the host has sent the next one.
    """
    # In float64, as a sum of many small parts.
    total = tf.constant(0.0, tf.float64)
    waited_s, last_report = 0.0, time.monotonic()
    started = time.perf_counter()
    for number in range(steps):
        wait_began = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - wait_began if number else 0.0
        loss = learner.step(batch)
        total += tf.cast(loss, tf.float64)
        if number == 0:
            float(loss)
            started = time.perf_counter()
        if report and time.monotonic() - last_report > PROGRESS_INTERVAL_S:
            last_report = time.monotonic()
            report(number + 1, float(loss))
    return StepsDone(float(total), time.perf_counter() - started, waited_s)
