"""One scoring command while it runs: what it was asked for, and when it must stop."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Final

from jobs.console.output import say
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.run import request_stop
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from ray import ObjectRef

STOP_WITHIN_S: Final = 20
MERGE_HERE_ROWS: Final = 20_000
_POLL_S: Final = 0.2


class Stopped(PneumoniaError):
    """The run was told to stop. Its finished chunks are kept."""

    def __init__(self) -> None:
        super().__init__("stopped as asked; what is finished is kept.", Remedy.RUN_AGAIN)


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is carried out. None of these options changes a row."""

    address: str | None = None
    num_cpus: int | None = None
    shape: str = "auto"
    actors: tuple[int, int] | None = None
    decode_cpus: float | None = None
    actor_cpus: float | None = None
    deadline_s: float | None = None
    max_reject_rate: float = 1.0
    fresh: bool = False
    # Up to so many rows, the parts are merged in the driver.
    merge_here_rows: int = MERGE_HERE_ROWS


@dataclass
class ScoringContext:
    """One scoring command: its request, its options, its bundle, and the Ray session it holds open.

    `stop` is set when the command must end soon. `shipped` holds the bundle's files by engine, in Ray's object store.
    """

    results: Location
    request: RunRequest
    options: ExecutionOptions
    bundle: Bundle
    session: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    shipped: dict[str, "ObjectRef[dict[str, bytes]]"] = field(default_factory=dict)

    @property
    def until(self) -> float:
        """The deadline on the clock of time.monotonic, infinity where there is none."""
        deadline_s = self.options.deadline_s
        return math.inf if deadline_s is None else self.started + deadline_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, infinity where there is none."""
        return self.until - time.monotonic()

    @property
    def past_deadline(self) -> bool:
        return self.left_s <= 0

    def check_stop(self) -> None:
        """Raise Stopped where the command must end."""
        if self.stop.is_set():
            raise Stopped


def start_ray(context: ScoringContext) -> None:
    """Connect to the cluster, or start Ray, until the command's session ends."""
    # Ray is imported only by a run that needs it: most nights score little or nothing.
    import ray

    from jobs.ray_runtime.session import ray_session

    if ray.is_initialized():
        return
    handler = signal.getsignal(signal.SIGTERM)
    context.session.enter_context(ray_session(context.options.address, context.options.num_cpus))
    if threading.current_thread() is threading.main_thread():
        # Ray has replaced the handler by one that ends the process at once.
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def stopping_on_sigterm(context: ScoringContext) -> Iterator[None]:
    """SIGTERM sets the context's `stop`; after twenty seconds more, Stopped is raised wherever the run is.

    Signals arrive in the main thread. A run in another thread is stopped by `stop` alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # No printing and no I/O here: the handler may interrupt either.
        if not context.stop.is_set():
            context.stop.set()
            signal.alarm(STOP_WITHIN_S)

    def give_up(number: int, frame: FrameType | None) -> None:
        raise Stopped

    previous = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGTERM, stop), (signal.SIGALRM, give_up))
    }
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def chunks_stopped_in_time(context: ScoringContext, run_folder: Location) -> Iterator[None]:
    """While the block runs, a thread writes the run's stop flag when `stop` is set or the deadline has passed.

    The driver may wait for a chunk meanwhile; the workers see the flag before they begin the next one.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            if not (context.stop.is_set() or context.past_deadline):
                continue
            try:
                request_stop(run_folder)
            except OSError:
                # The storage fails for a moment: the flag is written at the next poll.
                continue
            if context.stop.is_set():
                say("stopping: the chunks in work are finished first")
            return

    watcher = threading.Thread(target=watch, name="stop-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
