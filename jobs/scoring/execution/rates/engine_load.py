"""An engine at work alone, with batches from as many threads as an actor has chunks."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jobs.scoring.execution.engine_once import EngineOnce, EngineSpec
from jobs.scoring.execution.placement import CHUNKS_PER_ACTOR


class EngineLoad:
    """The engine of an actor, opened when first asked for, and batches of noise for it."""

    def __init__(self, spec: EngineSpec, threads: int, image_size: int) -> None:
        self._spec = spec
        self._image_size = image_size
        self._engine = EngineOnce(threads)

    def open(self) -> None:
        """Open the engine, and compute a batch. Raises PneumoniaError where it cannot."""
        self._batch()()

    def rate(self, seconds: float) -> float:
        """Images per second that the engine computes in so many seconds."""
        return work_rate((self._batch() for _ in range(CHUNKS_PER_ACTOR)), seconds)

    def _batch(self) -> Callable[[], int]:
        size, count = self._image_size, self._spec.batch_size
        pixels = np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)
        names = [""] * count

        def compute() -> int:
            with self._engine.scorer(self._spec, isolated=False) as scorer:
                return len(scorer(pixels, names).scores.probabilities)

        return compute


def work_rate(workers: Iterable[Callable[[], int]], seconds: float) -> float:
    """What the workers do per second, each in a thread; the last piece of each counts with its time."""
    begun = time.perf_counter()

    def work(worker: Callable[[], int]) -> int:
        done = 0
        while time.perf_counter() - begun < seconds:
            done += worker()
        return done

    at_work = list(workers)
    with ThreadPoolExecutor(len(at_work), thread_name_prefix="rate") as pool:
        done = sum(pool.map(work, at_work))
    return done / (time.perf_counter() - begun)
