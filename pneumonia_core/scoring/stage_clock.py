"""What a worker does with its time: its seconds by stage, measured around each image and each batch."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Final, ParamSpec, TypeVar

import numpy as np

from pneumonia_core.archives.archive import fetch_image
from pneumonia_core.archives.entries import FetchedImage
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.runs.outcome.timings import Stage, StageSeconds
from pneumonia_core.scoring.engine_batch import BatchScores, ScoreBatch

P = ParamSpec("P")
Result = TypeVar("Result")
_STAGES: Final[tuple[Stage, ...]] = ("read", "decode", "infer", "write", "load")
# What waits for a storage, and leaves the cores to the rest.
_WAITING: Final[tuple[Stage, ...]] = ("read", "write")


class StageClock:
    """Divides the life of a process with `threads` cores among its stages; any thread may use it.

    A second in which cores compute is theirs: an engine counts as `threads` of them, a thread that decodes or
    opens an engine as one. Otherwise it is of the threads that read or write, however many these are: they
    wait for a storage together. A second in which no thread is in a stage is idle.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._active: dict[Stage, int] = dict.fromkeys(_STAGES, 0)
        self._seconds: dict[str, float] = dict.fromkeys((*_STAGES, "idle"), 0.0)
        self._until: float | None = None

    @contextlib.contextmanager
    def at(self, stage: Stage) -> Iterator[None]:
        """This thread is in this stage for as long as the block."""
        self._change(stage, 1)
        try:
            yield
        finally:
            self._change(stage, -1)

    def take(self) -> StageSeconds:
        """The seconds since the last call, or since the first stage began: their sum is the time between."""
        with self._lock:
            self._pass()
            taken = StageSeconds(**self._seconds)
            self._seconds = dict.fromkeys(self._seconds, 0.0)
            return taken

    def _change(self, stage: Stage, by: int) -> None:
        with self._lock:
            self._pass()
            self._active[stage] += by

    def _pass(self) -> None:
        """Divide the seconds that have passed since the last change."""
        now = time.perf_counter()
        passed = 0.0 if self._until is None else now - self._until
        self._until = now
        active = self._active
        # A batch that waits for its turn, or is on its way to a GPU, counts with the one that is computed.
        at_work: dict[Stage, int] = {
            "infer": self._threads if active["infer"] else 0,
            "decode": active["decode"],
            "load": 1 if active["load"] else 0,
        }
        if not any(at_work.values()):
            at_work = {stage: 1 if active[stage] else 0 for stage in _WAITING}
        if not (whole := sum(at_work.values())):
            self._seconds["idle"] += passed
            return
        for stage, share in at_work.items():
            self._seconds[stage] += passed * share / whole


def timed_decode(
    decode: Callable[[FetchedImage, int], Decoded], clock: StageClock, isolated: bool
) -> Callable[[FetchedImage, int], Decoded]:
    """`decode` on this clock. What is left to be read is read before, so that it counts as reading.

    Where decoding is `isolated` in a child process, that reads as well: reading, too, may never end.
    """

    def timed(image: FetchedImage, image_size: int) -> Decoded:
        if image.content is None and not isolated:
            with clock.at("read"):
                image = fetch_image(image.ref)
        with clock.at("decode"):
            return decode(image, image_size)

    return timed


def timed_scorer(scorer: ScoreBatch, clock: StageClock) -> ScoreBatch:
    """`scorer` on this clock."""

    def timed(pixels: np.ndarray, uris: Sequence[str]) -> BatchScores:
        with clock.at("infer"):
            return scorer(pixels, uris)

    return timed


class TimedReaders(Executor):
    """Threads that read, on this clock."""

    def __init__(self, readers: Executor, clock: StageClock) -> None:
        self._readers = readers
        self._clock = clock

    def submit(self, fn: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Future[Result]:
        return self._readers.submit(self._timed, partial(fn, *args, **kwargs))

    def _timed(self, read: Callable[[], Result]) -> Result:
        with self._clock.at("read"):
            return read()
