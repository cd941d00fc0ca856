"""The steps of an epoch on one worker, without a wait for the device after each."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import tensorflow as tf

from pneumonia_core.system.failpoints import failpoint
from pneumonia_core.training.history import NOT_BEGUN, EpochProgress
from pneumonia_core.training.learner import Learner, TrainingBatch

PROGRESS_INTERVAL_S: Final = 2.0


def take_steps(
    learner: Learner,
    batches: Iterator[TrainingBatch],
    steps: int,
    report: Callable[[int, float], None] | None = None,
    before: EpochProgress = NOT_BEGUN,
    pause: Callable[[EpochProgress], int] | None = None,
) -> EpochProgress:
    """Train on the next batches until `steps` of the epoch are done, of which `before` are.

    The losses are this worker's parts. `report` gets the number of a step, counted from 1, and its loss,
    every few seconds. `pause` is called after the first step, and then after as many further steps as it
    returned, except after the last one; its time does not count.

    Only then, after the first step and at the end is a loss fetched: a GPU would otherwise be idle after each
    step until the host has sent the next one.
    """
    # In float64, as a sum of many small parts.
    total = tf.constant(before.loss, tf.float64)
    waited_s, last_report = before.waited_s, time.monotonic()
    started, first = time.perf_counter(), before.steps
    next_pause = first + 1 if pause else steps

    def progress(done: int) -> EpochProgress:
        loss = float(total)
        seconds = before.seconds + time.perf_counter() - started
        return EpochProgress(done, loss, before.timed_steps + done - first - 1, seconds, waited_s)

    for number in range(first, steps):
        wait_began = time.perf_counter()
        batch = next(batches)
        waited_s += time.perf_counter() - wait_began if number > first else 0.0
        loss = learner.step(batch)
        failpoint("step", f"step {number + 1}.")
        total += tf.cast(loss, tf.float64)
        if number == first:
            float(loss)
            started = time.perf_counter()
        if report and time.monotonic() - last_report > PROGRESS_INTERVAL_S:
            last_report = time.monotonic()
            report(number + 1, float(loss))
        if pause and number + 1 == next_pause < steps:
            done = progress(number + 1)
            pause_began = time.perf_counter()
            next_pause += pause(done)
            started += time.perf_counter() - pause_began
    return progress(steps)
