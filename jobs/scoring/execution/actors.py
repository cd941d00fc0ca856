"""Actors and tasks of the scoring pipeline: each turns chunks into parts and returns receipts."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from jobs.scoring.execution.blocks import from_block, to_block
from pneumonia_core.archives.entries import image_refs
from pneumonia_core.bundles.engines import BATCH_SIZE, Engine
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.runs.crash_journal import CrashJournal
from pneumonia_core.runs.inventory import CHUNK_SCHEMA, ChunkRef, read_chunk
from pneumonia_core.runs.parts import write_part
from pneumonia_core.runs.run import stop_flag
from pneumonia_core.scoring.chunk import RowConstants, score_rows
from pneumonia_core.scoring.decoding import decode_ahead, exit_if_stuck
from pneumonia_core.scoring.engine_batch import BatchScorer, in_this_process
from pneumonia_core.scoring.isolated_engine import EngineFiles, isolated_engine
from pneumonia_core.scoring.isolation import decode_all, decoder
from pneumonia_core.scoring.prefetch import READERS_PER_CORE
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import exists
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint
from pneumonia_core.system.scratch import ScratchFolder

if TYPE_CHECKING:
    from ray import ObjectRef

# Failures of a machine or a storage. Any other exception is a bug and keeps its traceback.
_EXPECTED: Final = (PneumoniaError, OSError)
RECEIPT_SCHEMA: Final = pa.schema(
    [
        pa.field("chunk", pa.int64(), nullable=False),
        pa.field("scored", pa.int64()),
        pa.field("rejected", pa.int64()),
        # Null where the chunk's part is written. Exceptions lose their cause on the way through Ray Data.
        pa.field("error", pa.string()),
        pa.field("remedy", pa.string()),
    ]
)


@dataclass(frozen=True)
class EngineSpec:
    """Which engine an actor opens.

    `bundle_files` are in Ray's object store, so a worker needs no path to the bundle.
    """

    bundle_files: "ObjectRef[dict[str, bytes]]"
    engine: str
    precision: str
    gpu: bool


@dataclass(frozen=True)
class ChunkJob:
    """What an actor or task needs to turn chunks into parts."""

    run_folder: Location
    constants: RowConstants
    engine: EngineSpec


@dataclass(frozen=True)
class Receipt:
    """Summary of a scored chunk, returned to the driver."""

    chunk: int
    scored: int
    rejected: int


@dataclass(frozen=True)
class ChunkFailure:
    """Why a chunk has no part: the text and the remedy of the error."""

    chunk: int
    error: str
    remedy: Remedy | None


Outcome = Receipt | ChunkFailure


def outcomes(table: pa.Table) -> list[Outcome]:
    """The outcomes in a table of RECEIPT_SCHEMA."""
    return [
        Receipt(row["chunk"], row["scored"], row["rejected"])
        if row["error"] is None
        else ChunkFailure(row["chunk"], row["error"], row["remedy"] and Remedy[row["remedy"]])
        for row in table.to_pylist()
    ]


class ScoreChunk:
    """Shape `cpu`: reads, decodes and scores whole chunks in one process; no pixel leaves it."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)
        self._ahead = max(2 * BATCH_SIZE, READERS_PER_CORE * threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(READERS_PER_CORE * threads, thread_name_prefix="read")

    def __call__(self, refs: pa.Table, job: ChunkJob) -> pa.Table:
        if _stop_requested(job):
            return _receipt_table([])
        return _receipt_table([self._outcome(ref, job) for ref in _refs_of(refs)])

    def _outcome(self, ref: ChunkRef, job: ChunkJob) -> Outcome:
        try:
            return self._score(ref, job)
        except _EXPECTED as error:
            return _failure(ref.chunk, error)

    def _score(self, ref: ChunkRef, job: ChunkJob) -> Receipt:
        rows = read_chunk(job.run_folder, ref)
        with (
            _begin(job, "chunk", ref.chunk) as journal,
            self._engine.scorer(job.engine, journal.is_retry) as scorer,
            decoder(journal.is_retry) as decode,
        ):
            refs = image_refs(rows)
            size = job.constants.image_size
            ahead = decode_ahead(refs, size, self._pool, self._readers, self._ahead, decode)
            images = exit_if_stuck(ahead)
            part = score_rows(rows, images, scorer, job.constants)
            return _finish_chunk(job, ref.chunk, part, journal)


def decode_chunk(refs: pa.Table, job: ChunkJob, threads: int) -> pa.Table:
    """Shape `gpu`, first step, a task on any node: the chunk's rows with their pixels.

    A chunk that cannot be decoded becomes a table of RECEIPT_SCHEMA.
    """
    (ref,) = _refs_of(refs)
    try:
        return _decode(ref, job, threads)
    except _EXPECTED as error:
        return _receipt_table([_failure(ref.chunk, error)])


def _decode(ref: ChunkRef, job: ChunkJob, threads: int) -> pa.Table:
    rows = read_chunk(job.run_folder, ref)
    if _stop_requested(job):
        rows = rows.slice(0, 0)
    size = job.constants.image_size
    with _begin(job, "decode", ref.chunk) as journal:
        images = decode_all(image_refs(rows), size, threads, journal.is_retry)
        journal.finish()
    return to_block(ref.chunk, rows, images, size)


class ScoreDecoded:
    """Shape `gpu`, second step: the engine over decoded chunks."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)

    def __call__(self, decoded: pa.Table, job: ChunkJob) -> pa.Table:
        if decoded.column_names == RECEIPT_SCHEMA.names:
            # The chunk could not be decoded: its failure goes on to the driver.
            return decoded
        if not decoded.num_rows or _stop_requested(job):
            return _receipt_table([])
        return _receipt_table([self._outcome(decoded, job)])

    def _outcome(self, decoded: pa.Table, job: ChunkJob) -> Outcome:
        chunk = decoded["chunk"][0].as_py()
        try:
            return self._score(chunk, decoded, job)
        except _EXPECTED as error:
            return _failure(chunk, error)

    def _score(self, chunk: int, decoded: pa.Table, job: ChunkJob) -> Receipt:
        images = from_block(decoded, job.constants.image_size)
        rows = decoded.select(CHUNK_SCHEMA.names)
        with (
            _begin(job, "score", chunk) as journal,
            self._engine.scorer(job.engine, journal.is_retry) as scorer,
        ):
            part = score_rows(rows, images, scorer, job.constants)
            return _finish_chunk(job, chunk, part, journal)


class EngineOnce:
    """An actor's engine, opened for the first chunk. `lock` lets one batch at a time into it."""

    def __init__(self, threads: int) -> None:
        self.lock = threading.Lock()
        self._threads = threads
        self._engine: Engine | None = None
        self._isolation = threading.Lock()

    def open(self, spec: EngineSpec) -> Engine:
        with self.lock:
            if self._engine is None:
                with _engine_files(spec, self._threads) as files:
                    self._engine = files.open()
            return self._engine

    @contextlib.contextmanager
    def scorer(self, spec: EngineSpec, isolated: bool) -> Iterator[BatchScorer]:
        """What scores a chunk's batches, `isolated` in a child process, of which an actor has one at most."""
        if not isolated:
            yield in_this_process(self.open(spec), self.lock)
            return
        with (
            self._isolation,
            _engine_files(spec, self._threads) as files,
            isolated_engine(files) as scorer,
        ):
            yield scorer


@contextlib.contextmanager
def _engine_files(spec: EngineSpec, threads: int) -> Iterator[EngineFiles]:
    """The shipped bundle in a folder of its own."""
    # A command that is refused imports this module, but not Ray, which takes a second.
    import ray

    files = ray.get(spec.bundle_files)
    with ScratchFolder("bundle") as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield EngineFiles(folder, spec.engine, spec.precision, threads, spec.gpu)


def _begin(job: ChunkJob, stage: str, chunk: int) -> CrashJournal:
    """The journal of an attempt that begins in this process."""
    # As in `_engine_files`.
    import ray

    return CrashJournal(job.run_folder, stage, chunk, ray.get_runtime_context().get_node_id())


def _failure(chunk: int, error: PneumoniaError | OSError) -> ChunkFailure:
    if isinstance(error, PneumoniaError):
        return ChunkFailure(chunk, error.text, error.remedy)
    return ChunkFailure(
        chunk,
        f"{error_text(error)} while chunk {chunk} was read or written. Nothing was committed.",
        Remedy.FIX_AND_RUN_AGAIN,
    )


def _stop_requested(job: ChunkJob) -> bool:
    return exists(stop_flag(job.run_folder))


def _finish_chunk(job: ChunkJob, chunk: int, part: pa.Table, journal: CrashJournal) -> Receipt:
    failpoint("part.before", str(chunk))
    write_part(job.run_folder, chunk, part)
    failpoint("part.after", str(chunk))
    journal.finish()
    statuses = Counter(part["status"].to_pylist())
    return Receipt(chunk, statuses["scored"], statuses["rejected"])


def _refs_of(table: pa.Table) -> list[ChunkRef]:
    return [ChunkRef(**row) for row in table.to_pylist()]


def _receipt_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """A table of RECEIPT_SCHEMA. A remedy travels as its name."""
    rows = [dict(vars(outcome)) for outcome in outcomes]
    for row in rows:
        remedy = row.get("remedy")
        row["remedy"] = remedy and remedy.name
    return pa.Table.from_pylist(rows, schema=RECEIPT_SCHEMA)
