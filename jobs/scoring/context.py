"""One scoring command at work: what it was asked, when it must stop, and how its errors read."""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from jobs.console.output import say
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.storage.location import Location

STOP_WITHIN_S: Final = 20
_STOPPED: Final = "stopped as asked; what is finished is kept. Run the same command again to go on."


class Stopped(PneumoniaError):
    """The run was asked to stop: what is finished is kept."""


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is carried out: nothing here changes a row."""

    address: str | None = None
    num_cpus: int | None = None
    shape: str = "auto"
    actors: tuple[int, int] | None = None
    decode_cpus: float | None = None
    actor_cpus: float | None = None
    deadline_s: float | None = None
    max_reject_rate: float = 1.0
    fresh: bool = False


@dataclass
class ScoringContext:
    """One command at work: the run, what it goes by, and when it must stop."""

    results: Location
    order: RunRequest
    settings: ExecutionOptions
    bundle: Any
    session: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    run_folder: Location | None = None
    on_sigterm: Callable[[int, FrameType | None], None] | None = None
    stop_requested: bool = False

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, infinity where there is none."""
        deadline = self.settings.deadline_s
        return math.inf if deadline is None else self.started + deadline - time.monotonic()

    @property
    def past_deadline(self) -> bool:
        return self.left_s <= 0


def check_stop(work: ScoringContext) -> None:
    if work.stop_requested:
        raise Stopped(_STOPPED)


def start_ray(work: ScoringContext) -> None:
    import ray

    from jobs.ray_runtime.session import ray_session

    if not ray.is_initialized():
        work.session.enter_context(ray_session(work.settings.address, work.settings.num_cpus))
        if work.on_sigterm is not None:
            # Ray has put its own handler in its place, one that leaves at once.
            signal.signal(signal.SIGTERM, work.on_sigterm)


@contextlib.contextmanager
def stopping_on_sigterm(work: ScoringContext) -> Iterator[None]:
    """SIGTERM lets the chunks at hand finish, for twenty seconds at most."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise Stopped(_STOPPED)

    def stop(number: int, frame: FrameType | None) -> None:
        if work.stop_requested:
            return
        say("stopping: the chunks at hand are finished first")
        work.stop_requested = True
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(STOP_WITHIN_S)
        if work.run_folder is not None:
            request_stop(work.run_folder)

    from pneumonia_core.runs.record import request_stop

    work.on_sigterm = stop
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, previous)
