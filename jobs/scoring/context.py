"""One scoring command while it runs: what it was requested to do, and when it must stop."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Final

from jobs.ray_runtime.session import SessionAhead
from jobs.scoring.execution.placement import PlacementOptions
from jobs.scoring.execution.queue import QueueClient, start_queue
from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.gates import Gate
from pneumonia_core.runs.outcome.timings import StepClock
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.location import Location

if TYPE_CHECKING:
    from ray import ObjectRef

    from jobs.scoring.execution.engine_once import ShippedFiles

STOP_WITHIN_S: Final = 20
MERGE_HERE_ROWS: Final = 20_000


class Stopped(PneumoniaError):
    """SIGTERM stopped the run. Its finished chunks are kept."""

    def __init__(self) -> None:
        super().__init__("stopped as requested; what is finished is kept.", Remedy.RUN_AGAIN)


@dataclass(frozen=True)
class ExecutionOptions:
    """How a run is carried out. None of these options changes a row."""

    address: str | None = None
    num_cpus: int | None = None
    shape: str = "auto"
    actors: tuple[int, int] | None = None
    decode_cpus: float | None = None
    actor_cpus: float | None = None
    actor_gpus: float | None = None
    deadline_s: float | None = None
    max_reject_rate: float = 1.0
    # What may hold the commit back, by name. A table that nobody keeps has no gate.
    gates: Mapping[str, Gate] = field(default_factory=dict)
    fresh: bool = False
    # Where decoded squares are kept.
    cache: Location | None = None
    # Up to this number of rows, the parts are merged in the driver.
    merge_here_rows: int = MERGE_HERE_ROWS

    @property
    def placement(self) -> PlacementOptions:
        return PlacementOptions(self.actors, self.actor_cpus, self.actor_gpus, self.decode_cpus)


@dataclass
class ScoringContext:
    """One scoring command: its request, its options, its bundle, and the Ray session it holds open.

    `steps` measures the run at work. `stop_requested` says that the command must end soon. `shipped` holds
    the bundle's files by how their paths begin, in Ray's object store. `queue` is that of the next execution.
    """

    results: Location
    request: RunRequest
    options: ExecutionOptions
    bundle: Bundle
    session: contextlib.ExitStack
    started: float = field(default_factory=time.monotonic)
    # Not an Event: its lock would deadlock where the signal handler interrupts the main thread inside it.
    stop_requested: bool = False
    steps: StepClock = field(default_factory=StepClock)
    ray: SessionAhead | None = None
    queue: QueueClient | None = None
    # Whether the user knows that the cache of squares is of no use.
    cache_failed: bool = False
    shipped: dict[str, "ObjectRef[ShippedFiles]"] = field(default_factory=dict)

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

    def squares_of(self, run: Run) -> Location | None:
        """Where the squares of a run are in the cache; None without a cache that can be written."""
        if self.options.cache is None or self.cache_failed:
            return None
        # Imports decoders, which the driver of a run without a cache does not need.
        from pneumonia_core.scoring.square_cache import squares_folder

        trust_chest = run.record.configuration.trust_chest
        return squares_folder(self.options.cache, self.bundle.image_size, trust_chest)

    def start_queue(self) -> None:
        """Start the queue of the next execution: its process takes as long as the bundle takes to Ray."""
        self.queue = start_queue()

    def take_queue(self) -> QueueClient:
        """A queue for an execution, which ends it."""
        queue, self.queue = self.queue, None
        return queue or start_queue()

    def end_queue(self) -> None:
        """End a queue that no execution has taken."""
        if self.queue is not None:
            self.take_queue().kill()

    def check_stop(self) -> None:
        """Raise Stopped if SIGTERM has arrived."""
        if self.stop_requested:
            raise Stopped


@contextlib.contextmanager
def scoring_instead(context: ScoringContext, request: RunRequest, bundle: Bundle) -> Iterator[None]:
    """Until the block ends, the command has this request and this bundle."""
    own = context.request, context.bundle, context.shipped
    context.request, context.bundle, context.shipped = request, bundle, {}
    try:
        yield
    finally:
        context.request, context.bundle, context.shipped = own


def begin_ray(context: ScoringContext) -> SessionAhead:
    """Begin to connect to the cluster, or to start Ray, until the command's session ends; in a thread.

    Later calls do nothing. In a thread Ray leaves the handler of SIGTERM as it is.
    """
    if context.ray is None:
        ahead = SessionAhead(context.options.address, context.options.num_cpus, context.start_queue)
        context.ray = context.session.enter_context(ahead)
        context.session.callback(context.end_queue)
    return context.ray


def start_ray(context: ScoringContext) -> None:
    """Return once Ray can be used, which the first call begins. Raises Stopped if SIGTERM arrives before."""
    ahead = begin_ray(context)
    with context.steps.step("connect"):
        ahead.wait(context.check_stop)


@contextlib.contextmanager
def stopping_on_sigterm(context: ScoringContext) -> Iterator[None]:
    """SIGTERM sets the context's `stop_requested`; after 20 seconds Stopped is raised wherever the run is.

    Python runs signal handlers in the main thread. A run in another thread installs none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # No printing, no I/O and no lock here: the handler may interrupt any of them.
        if not context.stop_requested:
            context.stop_requested = True
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
