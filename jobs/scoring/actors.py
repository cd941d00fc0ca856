"""The two shapes of the scoring pipeline, as Ray Data graphs over the same read, decode and score functions."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from jobs.scoring.blocks import from_block, to_block
from pneumonia_core.archives.entries import image_refs
from pneumonia_core.bundles.bundle import load_engine, open_bundle
from pneumonia_core.bundles.engines import BATCH_SIZE, Engine
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.crash_journal import CrashJournal
from pneumonia_core.runs.inventory import CHUNK_SCHEMA, ChunkRef, read_chunk
from pneumonia_core.runs.parts import write_part
from pneumonia_core.runs.record import _STOP
from pneumonia_core.scoring.chunk import RowConstants, score_rows
from pneumonia_core.scoring.decoding import decode_ahead, exit_if_stuck
from pneumonia_core.scoring.isolation import decode_all, decoder
from pneumonia_core.scoring.prefetch import READERS_PER_CORE
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import exists
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint
from pneumonia_core.system.scratch import ScratchFolder

# What a machine or a storage does; anything else is a mistake of ours and keeps its traceback.
_EXPECTED: Final = (PneumoniaError, OSError)
_RECEIPT_SCHEMA: Final = pa.schema(
    [("chunk", pa.int64()), ("scored", pa.int64()), ("rejected", pa.int64()), ("error", pa.string())]
)


@dataclass(frozen=True)
class ChunkJob:
    """What an actor or task needs to turn chunks into parts. `bundle_files` are shipped through Ray's
    object store, so that a worker needs no path to the bundle."""

    run_folder: Location
    facts: RowConstants
    precision: str
    gpu: bool
    bundle_files: Any


@dataclass(frozen=True)
class Receipt:
    """What is left of a chunk once its part is written."""

    chunk: int
    scored: int
    rejected: int
    # What kept the chunk from being finished: exceptions lose their cause on the way through Ray Data.
    error: str | None = None


def _stop_requested(job: ChunkJob) -> bool:
    return exists(job.run_folder.child(_STOP))


class ScoreChunk:
    """Shape `cpu`: reads, decodes and scores whole chunks in one process; no pixel leaves it."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)
        self._ahead = max(2 * BATCH_SIZE, READERS_PER_CORE * threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(READERS_PER_CORE * threads, thread_name_prefix="read")

    def __call__(self, refs: pa.Table, job: ChunkJob) -> pa.Table:
        if _stop_requested(job):
            return _receipts([])
        return _receipts([_errors_as_receipts(self._score, ref, job) for ref in _refs_of(refs)])

    def _score(self, ref: ChunkRef, job: ChunkJob) -> Receipt:
        rows = read_chunk(job.run_folder, ref)
        trail = CrashJournal(job.run_folder, "chunk", ref.chunk)
        with decoder(trail.is_retry) as decode:
            refs = image_refs(rows)
            size = job.facts.image_size
            ahead = decode_ahead(refs, size, self._pool, self._readers, self._ahead, decode)
            images = exit_if_stuck(ahead)
            part = score_rows(rows, images, self._engine.open(job), job.facts, self._engine.lock, trail)
        return _finish_chunk(job, ref.chunk, part, trail)


def decode_chunk(refs: pa.Table, job: ChunkJob, threads: int) -> pa.Table:
    """Shape `gpu`, first step: the chunk's rows with their pixels, a task on any node."""
    (ref,) = _refs_of(refs)
    try:
        return _decode(ref, job, threads)
    except _EXPECTED as error:
        return pa.table({"error": [_explained(error)]})


def _decode(ref: ChunkRef, job: ChunkJob, threads: int) -> pa.Table:
    rows = read_chunk(job.run_folder, ref)
    if _stop_requested(job):
        rows = rows.slice(0, 0)
    size = job.facts.image_size
    trail = CrashJournal(job.run_folder, "decode", ref.chunk)
    images = decode_all(image_refs(rows), size, threads, trail.is_retry)
    trail.finish()
    return to_block(ref.chunk, rows, images, size)


class ScoreDecoded:
    """Shape `gpu`, second step: the engine over decoded chunks."""

    def __init__(self, threads: int) -> None:
        self._engine = EngineOnce(threads)

    def __call__(self, decoded: pa.Table, job: ChunkJob) -> pa.Table:
        if "error" in decoded.column_names:
            return _receipts([Receipt(-1, 0, 0, decoded["error"][0].as_py())])
        if not decoded.num_rows or _stop_requested(job):
            return _receipts([])
        return _receipts([_errors_as_receipts(self._score, decoded, job)])

    def _score(self, decoded: pa.Table, job: ChunkJob) -> Receipt:
        chunk = decoded["chunk"][0].as_py()
        images = from_block(decoded, job.facts.image_size)
        rows = decoded.select(CHUNK_SCHEMA.names)
        trail = CrashJournal(job.run_folder, "score", chunk)
        part = score_rows(rows, images, self._engine.open(job), job.facts, self._engine.lock, trail)
        return _finish_chunk(job, chunk, part, trail)


class EngineOnce:
    """An actor's engine, opened with the first chunk; `lock` lets one batch at a time into it."""

    def __init__(self, threads: int) -> None:
        self.lock = threading.Lock()
        self._threads = threads
        self._engine: Engine | None = None

    def open(self, job: ChunkJob) -> Engine:
        with self.lock:
            if self._engine is None:
                self._engine = _open_engine(job, self._threads)
            return self._engine


def _open_engine(job: ChunkJob, threads: int) -> Engine:
    """The engine of the shipped bundle, its hashes checked on the bytes that came."""
    import ray

    files: dict[str, bytes] = ray.get(job.bundle_files)
    with ScratchFolder("bundle") as folder:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        bundle = open_bundle(folder, only=frozenset(files))
        return load_engine(bundle, job.facts.engine, job.precision, threads, gpu=job.gpu)


def _errors_as_receipts(score: Callable[[Any, ChunkJob], Receipt], work: Any, job: ChunkJob) -> Receipt:
    try:
        return score(work, job)
    except _EXPECTED as error:
        return Receipt(-1, 0, 0, _explained(error))


def _explained(error: Exception) -> str:
    if isinstance(error, OSError):
        return (
            f"{error_text(error)} while a part was read or written. Nothing was committed; mend it and run the "
            "same command again."
        )
    return str(error)


def _finish_chunk(job: ChunkJob, chunk: int, part: pa.Table, trail: CrashJournal) -> Receipt:
    failpoint("part.before", str(chunk))
    write_part(job.run_folder, chunk, part)
    failpoint("part.after", str(chunk))
    trail.finish()
    statuses = Counter(part["status"].to_pylist())
    return Receipt(chunk, statuses["scored"], statuses["rejected"])


def _refs_of(table: pa.Table) -> list[ChunkRef]:
    return [ChunkRef(**row) for row in table.to_pylist()]


def _receipts(receipts: Sequence[Receipt]) -> pa.Table:
    return pa.Table.from_pylist([vars(receipt) for receipt in receipts], schema=_RECEIPT_SCHEMA)
