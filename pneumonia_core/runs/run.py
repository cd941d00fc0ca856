"""An open scoring run: its folder, its lock, and the one way to change its record.

The folder is RESULTS/runs/RUN_ID; its `run.json` holds the record. A run that has not ended also has a marker
file in RESULTS/runs/.unfinished.
"""

import datetime
import json
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self, Unpack

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.inventory import ChunkRef, read_chunk
from pneumonia_core.runs.record import EndState, RunChanges, RunRecord, RunRequest, RunState
from pneumonia_core.storage.files import delete_file, delete_folder, read_bytes, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.lock import Lock
from pneumonia_core.system.failpoints import failpoint

# What a run needs only until it has ended.
WORKING_FOLDERS: Final = ("parts", "chunks", "begun")


class Run:
    """An open run: its record, its folder, and the lock that shows other processes that it is alive.

    `superseded` holds the ids of its rows that another run has committed since this one was planned.
    """

    def __init__(
        self, results: Location, record: RunRecord, lock: Lock | None, resumed: bool = False
    ) -> None:
        self.results = results
        self.resumed = resumed
        self.superseded: frozenset[int] = frozenset()
        self._record = record
        self._lock = lock

    @property
    def record(self) -> RunRecord:
        return self._record

    @property
    def run_id(self) -> str:
        return self._record.run_id

    @property
    def folder(self) -> Location:
        return run_folder(self.results, self.run_id)

    def matches(self, request: RunRequest) -> bool:
        """Whether the run was started with the options of this request."""
        return self._record.matches(request)

    def advance(self, state: RunState | None = None, /, **changes: Unpack[RunChanges]) -> None:
        """Write run.json, whole, with this state, where one is given, and these fields changed.

        Raises LeaseLost where another process may own the run, and OSError where it cannot be written.
        """
        failpoint("save.before", state or "")
        self.check_lock()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = replace(self._record, **changes, state=state or self._record.state, updated_at=now)
        text = json.dumps(record.as_json(), indent=2) + "\n"
        write_bytes(self.folder.child("run.json"), text.encode())
        self._record = record
        failpoint("save.after", state or "")

    def finish(self, state: EndState, /, **changes: Unpack[RunChanges]) -> None:
        """End the run: write its record, and delete what only a resumed run needs."""
        self.advance(state, **changes)
        delete_file(marker(self.results, self.run_id))
        failpoint("cleanup")
        for name in WORKING_FOLDERS:
            delete_folder(self.folder.child(name))

    def hold(self, /, **changes: Unpack[RunChanges]) -> None:
        """Set the run aside: no command resumes it, and its parts are kept until it is accepted."""
        self.advance("held", **changes)
        delete_file(marker(self.results, self.run_id))

    def discard(self) -> None:
        """Delete a run that found nothing to do. Raises LeaseLost where another process may own it."""
        self.check_lock()
        delete_file(marker(self.results, self.run_id))
        # The lock is held until the folder is gone: no other command can resume the run before that.
        delete_folder(self.folder)
        self.unlock()

    @property
    def is_open(self) -> bool:
        """Whether this process still has the run: it was neither discarded nor unlocked."""
        return self._lock is not None

    def check_lock(self) -> None:
        """Raise LeaseLost where another process may own the run."""
        if self._lock is not None:
            self._lock.check()

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unlock()


def run_folder(results: Location, run_id: str) -> Location:
    """The folder of a run."""
    return results.child("runs").child(run_id)


def unfinished_folder(results: Location) -> Location:
    """The folder of the markers: one empty file, of the run's name, for each run that has not ended."""
    return results.child("runs").child(".unfinished")


def marker(results: Location, run_id: str) -> Location:
    """The file that marks a run as not ended."""
    return unfinished_folder(results).child(run_id)


def read_record(folder: Location) -> RunRecord:
    """The record in a run's folder.

    Raises InvalidInput where a newer version wrote it, PneumoniaError where it is damaged.
    """
    file = folder.child("run.json")
    content = read_bytes(file)
    try:
        return RunRecord.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise PneumoniaError(
            f"{file.uri} is damaged. Restore it. Without a backup, delete it: the table keeps its rows, and "
            "the next run over its archives finds out what has gone from them."
        ) from error


def chunks_still_needed(run: Run) -> list[ChunkRef]:
    """The chunks of the run, without those whose rows another run has all committed."""
    refs = [ref for shard in run.record.shards for ref in shard.chunk_refs()]
    if not run.superseded:
        return refs
    return [ref for ref in refs if not run.superseded.issuperset(_row_ids(run, ref))]


def unscored_rows(run: Run, chunks: Sequence[ChunkRef]) -> int:
    """How many rows of these chunks no run has scored."""
    if not run.superseded:
        return sum(ref.rows for ref in chunks)
    return sum(len(set(_row_ids(run, ref)) - run.superseded) for ref in chunks)


def _row_ids(run: Run, ref: ChunkRef) -> list[int]:
    row_ids: list[int] = read_chunk(run.folder, ref)["row_id"].to_pylist()
    return row_ids
