"""Actors and tasks of the scoring pipeline: each turns chunks into parts and returns what came of them."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import ray

from jobs.scoring.execution.blocks import (
    DecodedChunk,
    decoded_block,
    decoded_of,
    item_of,
    undecoded_block,
)
from jobs.scoring.execution.engine_once import EngineOnce, EngineSpec
from jobs.scoring.execution.outcomes import ChunkFailure, NotBegun, Outcome, Receipt, outcome_table
from jobs.scoring.execution.placement import threads
from jobs.scoring.execution.queue import QueueClient, WorkItem
from pneumonia_core.archives.entries import ImageRef, image_refs
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.runs.crash_journal import CrashJournal
from pneumonia_core.runs.inventory import read_chunk
from pneumonia_core.runs.outcome.timings import StageSeconds
from pneumonia_core.runs.parts import write_part
from pneumonia_core.scoring.chunk import RowConstants, score_rows
from pneumonia_core.scoring.decoding import decode_ahead, exit_if_stuck
from pneumonia_core.scoring.isolation import decode_all, decoder
from pneumonia_core.scoring.prefetch import READERS_PER_CORE
from pneumonia_core.scoring.square_cache import SquareCache, open_squares, with_cached_squares
from pneumonia_core.scoring.stage_clock import StageClock, TimedReaders, timed_decode, timed_scorer
from pneumonia_core.scoring.witness import witnessed
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint

# Failures of a machine or a storage. Any other exception is a bug and keeps its traceback.
_EXPECTED: Final = (PneumoniaError, OSError)
# So long a worker keeps a chunk that it must not begin. Ray Data would give it the chunk again: it takes the
# worker that has the least to do.
_KEEP_S: Final = 2.0


@dataclass(frozen=True)
class ChunkJob:
    """What an actor or task needs to turn chunks into parts. `squares` is the folder of the cache, if any."""

    run_folder: Location
    constants: RowConstants
    engine: EngineSpec
    squares: Location | None = None

    def cache(self) -> SquareCache | None:
        """The cache of decoded squares of this process."""
        return open_squares(self.squares, self.constants.run_id) if self.squares is not None else None


class ScoreChunk:
    """Shape `cpu`: reads, decodes and scores whole chunks in one process; no pixel leaves it."""

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._actor, self._engine, count = _register(queue)
        self._clock = StageClock(count)
        self._in_flight = READERS_PER_CORE * count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(READERS_PER_CORE * count, thread_name_prefix="read")

    def __call__(self, block: pa.Table, job: ChunkJob) -> pa.Table:
        item = item_of(block)
        if item is None:
            return outcome_table([])
        if (turned_away := _turned_away(self._queue, item, scores=True)) is not None:
            return outcome_table(turned_away)
        return outcome_table([_outcome(item, lambda: self._score(item, job))])

    def _score(self, item: WorkItem, job: ChunkJob) -> Receipt:
        started, clock = time.monotonic(), self._clock
        with clock.at("read"):
            rows = read_chunk(job.run_folder, item.ref)
        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(_begin(job, "chunk", item))
            isolated = journal.is_retry
            with clock.at("load"):
                scorer = stack.enter_context(self._engine.scorer(job.engine, isolated))
            decode = stack.enter_context(decoder(isolated, job.constants.trust_chest))
            decode = timed_decode(decode, clock, isolated)
            readers = TimedReaders(self._readers, clock)
            refs, size = image_refs(rows), job.constants.image_size
            # While one batch is computed, the next one is decoded.
            ahead = max(2 * job.constants.batch_size, self._in_flight)

            def decoded(missing: Sequence[ImageRef]) -> Iterator[Decoded]:
                images = decode_ahead(missing, size, self._pool, readers, ahead, decode)
                return exit_if_stuck(images)

            images = with_cached_squares(refs, size, item.ref.chunk, job.cache(), decoded)
            part = score_rows(rows, witnessed(rows, images), timed_scorer(scorer, clock), job.constants)
            return _finish_chunk(job, item.ref.chunk, part, journal, _Attempt(started, self._actor, clock))


def decode_chunk(block: pa.Table, job: ChunkJob, queue: QueueClient, threads: int) -> pa.Table:
    """Shape `gpu`, first step, a task on any node: the chunk with its pixels, or why it has none."""
    item = item_of(block)
    if item is None:
        return undecoded_block([])
    if (turned_away := _turned_away(queue, item, scores=False)) is not None:
        return undecoded_block(turned_away)
    clock = StageClock(threads)
    try:
        with clock.at("read"):
            rows = read_chunk(job.run_folder, item.ref)
        size = job.constants.image_size
        with _begin(job, "decode", item) as journal:
            trust, isolated = job.constants.trust_chest, journal.is_retry

            def decoded(missing: Sequence[ImageRef]) -> list[Decoded]:
                return decode_all(missing, size, threads, isolated, trust, clock)

            refs, chunk = image_refs(rows), item.ref.chunk
            images = list(with_cached_squares(refs, size, chunk, job.cache(), decoded))
            journal.finish()
        images = list(witnessed(rows, images))
        return decoded_block(item, rows, images, size, clock.take())
    except _EXPECTED as error:
        return undecoded_block([_failure(item.ref.chunk, error)])


class ScoreDecoded:
    """Shape `gpu`, second step: the engine over decoded chunks."""

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._actor, self._engine, count = _register(queue)
        self._clock = StageClock(count)

    def __call__(self, block: pa.Table, job: ChunkJob) -> pa.Table:
        decoded = decoded_of(block, job.constants.image_size)
        if not isinstance(decoded, DecodedChunk):
            return outcome_table(decoded)
        item = decoded.item
        if (turned_away := _turned_away(self._queue, item, scores=True)) is not None:
            return outcome_table(turned_away)
        return outcome_table([_outcome(item, lambda: self._score(decoded, job))])

    def _score(self, decoded: DecodedChunk, job: ChunkJob) -> Receipt:
        started, clock = time.monotonic(), self._clock
        with contextlib.ExitStack() as stack:
            journal = stack.enter_context(_begin(job, "score", decoded.item))
            with clock.at("load"):
                scorer = stack.enter_context(self._engine.scorer(job.engine, journal.is_retry))
            part = score_rows(decoded.rows, decoded.images, timed_scorer(scorer, clock), job.constants)
            attempt = _Attempt(started, self._actor, clock, decoded.seconds)
            return _finish_chunk(job, decoded.item.ref.chunk, part, journal, attempt)


def _register(queue: QueueClient) -> tuple[str, EngineOnce, int]:
    """Tell the queue that this actor has started; its id, its engine, and how many threads its CPUs are."""
    here = ray.get_runtime_context()
    actor = str(here.get_actor_id())
    specs = queue.register(actor, here.get_node_id())
    count = threads(here.get_assigned_resources().get("CPU", 1.0))
    engine = EngineOnce(count)
    for spec in specs:
        engine.open_ahead(spec)
    return actor, engine, count


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _turned_away(queue: QueueClient, item: WorkItem, scores: bool) -> list[Outcome] | None:
    """None where the chunk may begin here, otherwise what the driver learns of it."""
    permission = queue.begin(item.ref.chunk, _node(), item.avoid, scores)
    if permission == "go":
        return None
    if permission == "stop":
        return [NotBegun(item.ref.chunk, _node())]
    if permission == "wrong clock":
        text = f"the clock of node {_node()[:8]} is wrong by more than a day: the driver's differs."
        return [ChunkFailure(item.ref.chunk, _node(), text, Remedy.SET_CLOCK)]
    # The driver learns of it from the queue, and gives it out again before this ends.
    time.sleep(_KEEP_S)
    return []


def _outcome(item: WorkItem, score: Callable[[], Receipt]) -> Outcome:
    try:
        return score()
    except _EXPECTED as error:
        return _failure(item.ref.chunk, error)


def _begin(job: ChunkJob, stage: str, item: WorkItem) -> CrashJournal:
    """The journal of an attempt that begins in this process."""
    # The attempt of which this is a copy has not ended: it must not look like one that crashed.
    return CrashJournal(job.run_folder, f"{stage}-copy" if item.copy else stage, item.ref.chunk, _node())


def _failure(chunk: int, error: PneumoniaError | OSError) -> ChunkFailure:
    if isinstance(error, PneumoniaError):
        return ChunkFailure(chunk, _node(), error.text, error.remedy)
    return ChunkFailure(
        chunk,
        _node(),
        f"{error_text(error)} while chunk {chunk} was read or written. Nothing of this run was committed.",
        Remedy.FIX_AND_RUN_AGAIN,
    )


@dataclass(frozen=True)
class _Attempt:
    """A chunk that an actor has scored: since when, and what the task that decoded it took."""

    started: float
    actor: str
    clock: StageClock
    tasks: StageSeconds = field(default_factory=StageSeconds)


def _finish_chunk(
    job: ChunkJob, chunk: int, part: pa.Table, journal: CrashJournal, attempt: _Attempt
) -> Receipt:
    failpoint("part.before", str(chunk))
    with attempt.clock.at("write"):
        write_part(job.run_folder, chunk, part)
    failpoint("part.after", str(chunk))
    journal.finish()
    statuses = Counter(part["status"].to_pylist())
    seconds = time.monotonic() - attempt.started
    return Receipt(
        chunk,
        _node(),
        statuses["scored"],
        statuses["rejected"],
        seconds,
        attempt.actor,
        attempt.clock.take(),
        attempt.tasks,
    )
