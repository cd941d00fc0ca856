"""The unfinished runs of a results folder: those at work, and those that wait to be resumed."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pneumonia_core.runs.record import CLOSED, RunRecord
from pneumonia_core.runs.run import Run, marker, read_record, run_folder, unfinished_folder
from pneumonia_core.storage.errors import cannot_write
from pneumonia_core.storage.files import delete_file, exists, list_names
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.lock import Lock, holding_lock, take_lock


@contextlib.contextmanager
def registry_lock(results: Location) -> Iterator[Lock]:
    """The lock for finding and beginning runs, held for seconds: two commands must not begin one run each.

    It is the first thing that a run writes. Raises InvalidInput where that is not allowed.
    """
    folder = results.child("runs").child(".registry")
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(holding_lock(folder))
        except OSError as error:
            raise cannot_write(results.uri, "cannot write there", error) from error
        yield lock


@dataclass(frozen=True)
class Unfinished:
    """Unfinished runs, oldest first: `idle` ones locked by this process, `busy` ones of other processes."""

    idle: list[Run] = field(default_factory=list)
    busy: list[RunRecord] = field(default_factory=list)

    def unlock(self, keep: Run | None = None) -> None:
        """Unlock the idle runs but the one to keep."""
        for run in self.idle:
            if run is not keep:
                run.unlock()


def find_unfinished(
    results: Location, wanted: Callable[[RunRecord], bool] = lambda record: True
) -> Unfinished:
    """The unfinished runs that are `wanted` by their records. Others are neither locked nor changed."""
    found = Unfinished()
    try:
        for run_id in list_names(unfinished_folder(results)):
            folder = run_folder(results, run_id)
            if exists(folder.child("run.json")) and wanted(record := read_record(folder)):
                _add(found, results, record)
    except BaseException:
        found.unlock()
        raise
    return found


def _add(found: Unfinished, results: Location, record: RunRecord) -> None:
    lock = take_lock(run_folder(results, record.run_id))
    if lock is None:
        found.busy.append(record)
        return
    try:
        run = _unless_ended(results, record.run_id, lock)
    except BaseException:
        lock.release()
        raise
    if run is None:
        lock.release()
    else:
        found.idle.append(run)


def _unless_ended(results: Location, run_id: str, lock: Lock) -> Run | None:
    """The run whose lock this process has now; None where its last owner has ended it since it was found."""
    if not exists(marker(results, run_id)):
        return None
    record = read_record(run_folder(results, run_id))
    if record.state in CLOSED:
        # Its last owner died between its last record and the deletion of its marker.
        delete_file(marker(results, run_id))
        return None
    return Run(results, record, lock, resumed=True)
