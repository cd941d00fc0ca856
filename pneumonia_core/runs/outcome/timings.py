"""Where the time of a run went: the seconds of its workers by stage, and those of its commands by step."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

FORMAT_VERSION: Final = 1

Stage = Literal["read", "decode", "infer", "write", "load"]
# The steps of a command in their order. The driver is in one of them, or in none, at any time.
# import: what uses Ray; connect: waiting for the cluster, or for Ray to start; plan: waiting for the first
# planned chunk; nodes: waiting for the cluster to have one; engine: choosing it, and sending the bundle;
# workers: until one begins a chunk; score: until the last chunk is done; merge: the parts into files; commit.
Step = Literal["import", "connect", "plan", "nodes", "engine", "workers", "score", "merge", "commit"]
STEPS: Final[tuple[Step, ...]] = (
    "import", "connect", "plan", "nodes", "engine", "workers", "score", "merge", "commit",
)  # fmt: skip


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of the life of a process, divided among what it did; their sum is the life.

    `load` is opening the engine, `idle` having nothing to do. `scoring.stage_clock` says how a second is
    divided in which threads do several things.
    """

    read: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    write: float = 0.0
    load: float = 0.0
    idle: float = 0.0

    @property
    def total(self) -> float:
        return sum(vars(self).values())

    def __add__(self, other: "StageSeconds") -> "StageSeconds":
        mine, others = vars(self), vars(other)
        return StageSeconds(**{name: mine[name] + others[name] for name in mine})


@dataclass(frozen=True)
class RunTimings:
    """The timings of a run, summed over its commands; a command that was killed leaves none.

    `stages` are the seconds of all actors, `tasks` those of the tasks that decode in shape `gpu`. An actor's
    seconds begin with its first chunk and end with its last. `listing_s`: how long all workers waited for the
    listing. `images` are scored or rejected, `actors` those that finished a chunk. `limit` is one word,
    `why` a sentence: both None until a command has ended the run.
    """

    seconds: float = 0.0
    images: int = 0
    actors: int = 0
    stages: StageSeconds = field(default_factory=StageSeconds)
    tasks: StageSeconds = field(default_factory=StageSeconds)
    steps: Mapping[Step, float] = field(default_factory=dict)
    listing_s: float = 0.0
    limit: str | None = None
    why: str | None = None
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_json(cls, values: Mapping[str, Any] | None) -> "RunTimings | None":
        """The timings in a run.json; None where it has none, or those of a newer format."""
        if values is None or values["format_version"] > FORMAT_VERSION:
            return None
        names = {each.name for each in fields(cls)}
        known = {name: value for name, value in values.items() if name in names}
        for name in ("stages", "tasks"):
            known[name] = StageSeconds(**known[name])
        return cls(**known)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def images_per_s(self) -> float:
        """Images per second of the whole commands."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def scored_per_s(self) -> float:
        """Images per second from the first chunk that a worker began to the last that was done."""
        seconds = self.steps.get("score", 0.0)
        return self.images / seconds if seconds else 0.0

    def __add__(self, other: "RunTimings") -> "RunTimings":
        """Both together, rounded; without a limit."""
        steps = {name: self.steps.get(name, 0.0) + other.steps.get(name, 0.0) for name in STEPS}
        return RunTimings(
            round(self.seconds + other.seconds, 3),
            self.images + other.images,
            self.actors + other.actors,
            _rounded(self.stages + other.stages),
            _rounded(self.tasks + other.tasks),
            {name: round(seconds, 3) for name, seconds in steps.items() if seconds},
            round(self.listing_s + other.listing_s, 3),
        )


def _rounded(seconds: StageSeconds) -> StageSeconds:
    return StageSeconds(**{name: round(value, 3) for name, value in vars(seconds).items()})


class StepClock:
    """The steps of a command as they begin and end. `take` gives those since the last one, of one run."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._begun: dict[Step, float] = {}
        self._seconds: dict[Step, float] = {}
        self._listing_s = 0.0

    def begin(self, step: Step) -> None:
        self._begun[step] = time.perf_counter()

    def end(self, step: Step) -> None:
        """The step is over. Nothing happens where it has not begun."""
        if (begun := self._begun.pop(step, None)) is not None:
            self._add(step, time.perf_counter() - begun)

    def first_begun(self) -> None:
        """A worker has begun a chunk: with the first one, `workers` ends and `score` begins."""
        if "workers" in self._begun:
            self.end("workers")
            self.begin("score")

    @contextlib.contextmanager
    def step(self, step: Step) -> Iterator[None]:
        self.begin(step)
        try:
            yield
        finally:
            self.end(step)

    @contextlib.contextmanager
    def waiting_for_listing(self) -> Iterator[None]:
        """No worker has a chunk, because none is planned: step `plan` before the first one."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            waited = time.perf_counter() - begun
            if "score" in self._begun:
                self._listing_s += waited
            else:
                self._add("plan", waited)

    def _add(self, step: Step, seconds: float) -> None:
        self._seconds[step] = self._seconds.get(step, 0.0) + seconds

    def take(self) -> RunTimings:
        """The seconds and the steps since the last call, or since this was made."""
        for step in list(self._begun):
            self.end(step)
        now = time.perf_counter()
        taken = RunTimings(now - self._since, steps=dict(self._seconds), listing_s=self._listing_s)
        self._since = now
        self._seconds.clear()
        self._listing_s = 0.0
        return taken


class WorkerSeconds:
    """The seconds of all workers, as their receipts tell them; nothing is kept of a chunk."""

    def __init__(self) -> None:
        self._actors: set[str] = set()
        self._stages = StageSeconds()
        self._tasks = StageSeconds()

    def add(self, actor: str, stages: StageSeconds, tasks: StageSeconds) -> None:
        self._actors.add(actor)
        self._stages += stages
        self._tasks += tasks

    def timings(self, images: int) -> RunTimings:
        """What they are so far, with the number of images scored or rejected."""
        return RunTimings(images=images, actors=len(self._actors), stages=self._stages, tasks=self._tasks)
