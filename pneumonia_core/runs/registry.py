"""The scoring runs of a results folder: opened, resumed, abandoned and listed."""

import datetime
import itertools
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Final

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy, differing_options
from pneumonia_core.results.commit import committed_version
from pneumonia_core.runs.record import RunRecord, RunRequest
from pneumonia_core.runs.run import (
    WORKING_FOLDERS,
    Run,
    marker,
    read_record,
    run_folder,
    unfinished_folder,
)
from pneumonia_core.runs.unfinished import find_unfinished, registry_lock
from pneumonia_core.storage.errors import cannot_write
from pneumonia_core.storage.files import delete_folder, exists, list_names, make_folder, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.lock import find_holder, take_lock
from pneumonia_core.system.environment import installed_versions

_log = logging.getLogger(__name__)
# The most records that are read at once.
_READERS: Final = 16


class RunAtWork(PneumoniaError):
    """Another process works on the same archives with the same model."""


def open_run(results: Location, request: RunRequest, planned_version: int, fresh: bool) -> Run:
    """The unfinished run of these archives, or a new run that is planned from this version of the table.

    A run of another model comes first: it is returned as it is, and does not match the request. Runs over
    other archives do not count. Raises RunAtWork where another process scores the archives with the same
    model; a lease of a process that may have died is waited for. Raises InvalidInput where an unfinished run
    of the same model was started with other options; `fresh` abandons the unfinished runs instead. A run
    whose rows are in the table lacks only its last record, and is returned.
    """
    while True:
        with registry_lock(results) as registry:
            found = find_unfinished(results, lambda record: _same_archives(record, request))
            busy = [record for record in found.busy if _same_model(record, request)]
            run: Run | None = None
            try:
                if not busy:
                    run = _abandon(found.idle, request) if fresh else _run_to_resume(found.idle, request)
                    registry.check()
                    run = run or new_run(results, request, planned_version)
                    return run
            finally:
                found.unlock(keep=run)
        _wait_for_end(run_folder(results, busy[0].run_id), busy[0])


def _same_archives(record: RunRecord, request: RunRequest) -> bool:
    return set(record.configuration.archives) == set(request.archives)


def _same_model(record: RunRecord, request: RunRequest) -> bool:
    return record.configuration.model_id == request.model_id


def _wait_for_end(folder: Location, record: RunRecord) -> None:
    """Return when the run has no owner any more. Raises RunAtWork when it is known to have one."""
    if not folder.is_local:
        _log.warning(f"run {record.run_id} has an owner: waiting up to a minute to see whether that lives")
    if (holder := find_holder(folder)) is not None:
        raise RunAtWork(
            f"run {record.run_id} scores the same archives with the same model: {holder} is at work.",
            Remedy.LET_IT_END,
        )


def _run_to_resume(idle: Sequence[Run], request: RunRequest) -> Run | None:
    """The oldest run of another model, else the run that was started with the options of the request."""
    if not idle:
        return None
    for run in idle:
        if not _same_model(run.record, request):
            return run
    run = next((run for run in idle if run.matches(request)), idle[0])
    if not run.matches(request):
        changed = differing_options(asdict(run.record.configuration), asdict(request.configuration()))
        raise InvalidInput(
            f"run {run.run_id} is unfinished and was started with other options: {changed}. "
            "This request does not resume it.",
            Remedy.FINISH_OR_ABANDON,
        )
    return run


def _abandon(idle: Sequence[Run], request: RunRequest) -> Run | None:
    """Abandon the unfinished runs up to the first one whose rows are in the table, and return that one."""
    for run in sorted(idle, key=lambda run: not run.matches(request)):
        if version_with_rows(run) is not None:
            return run
        run.finish("abandoned", exit_code=1)
    return None


def new_run(results: Location, request: RunRequest, planned_version: int) -> Run:
    """A new run, locked, with its folder, record and marker.

    Raises PneumoniaError where they cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC)
    # Run ids sort by the table's version, which no clock can turn back, then by time to the microsecond. The
    # random end keeps two runs apart.
    run_id = f"{planned_version:06d}-{now:%Y%m%dT%H%M%S}-{now.microsecond:05x}{secrets.token_hex(1)}"
    folder = run_folder(results, run_id)
    record = RunRecord(
        run_id=run_id,
        run_date=request.run_date,
        state="listing",
        created_at=now.isoformat(timespec="microseconds"),
        configuration=request.configuration(),
        model=request.model,
        versions=installed_versions(),
        planned_version=planned_version,
    )
    run = Run(results, record, None)
    try:
        for name in ("inventory", *WORKING_FOLDERS):
            make_folder(folder.child(name))
        run = Run(results, record, take_lock(folder))
        run.advance()
        write_bytes(marker(results, run_id), b"")
    except OSError as error:
        run.discard()
        raise cannot_write(folder.uri, "cannot write there", error) from error
    return run


def version_with_rows(run: Run) -> int | None:
    """The version of the table that has the rows of a run; None where the run is not committed.

    A run with a version lacks only its last record.
    """
    if run.record.state != "staged":
        return None
    return committed_version(run.results, run.run_id, run.record.planned_version)


def read_runs(results: Location) -> list[RunRecord]:
    """The records of all runs, oldest first."""
    return list(_read_records(results, list_names(results.child("runs"))))


def _read_records(results: Location, run_ids: Iterable[str]) -> Iterator[RunRecord]:
    """The records of these runs in their order, without those of runs that died before they wrote one.

    The first one is read alone, because it is mostly the one that is looked for. Each further group is twice
    as large: there is one record for each night, and a bucket needs tens of milliseconds to give one.
    """
    left, at_once = iter(run_ids), 1
    with ThreadPoolExecutor(_READERS, thread_name_prefix="records") as readers:
        while group := list(itertools.islice(left, at_once)):
            folders = [run_folder(results, run_id) for run_id in group]
            yield from filter(None, readers.map(_record_if_written, folders))
            at_once = min(2 * at_once, 2 * _READERS)


def _record_if_written(folder: Location) -> RunRecord | None:
    try:
        return read_record(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def has_record(results: Location, run_id: str) -> bool:
    """Whether there is a run of this name, and it has written a record. The name may be a stranger's."""
    known = run_id in list_names(results.child("runs"))
    return known and exists(run_folder(results, run_id).child("run.json"))


def active_runs(results: Location) -> list[str]:
    """The ids of the unfinished runs that a process works on, or that are staged for their commit."""
    # A command that begins in between must not take this process for the owner of its run.
    with registry_lock(results):
        found = find_unfinished(results)
        found.unlock()
        # Afterwards: the markers of runs that have ended are deleted by then.
        names = list_names(unfinished_folder(results))
    resumable = {run.run_id for run in found.idle if run.record.state != "staged"}
    return [name for name in names if name not in resumable and exists(run_folder(results, name))]


def delete_unmarked_run(results: Location, run_id: str) -> bool:
    """Delete the folder of a run that died before its `.unfinished` marker was written.

    Returns whether it was deleted.
    """
    folder = run_folder(results, run_id)
    lock = take_lock(folder)
    if lock is None:
        return False
    unmarked = not exists(marker(results, run_id))
    if unmarked:
        delete_folder(folder)
    lock.release()
    return unmarked


def runs_newest_first(results: Location) -> Iterator[RunRecord]:
    """The records of all runs, newest first, read as they are taken."""
    return _read_records(results, reversed(list_names(results.child("runs"))))


def committed_runs(results: Location) -> Iterator[RunRecord]:
    """The records of the committed runs, newest first."""
    return (record for record in runs_newest_first(results) if record.state == "committed")


def last_committed(results: Location, like: RunRecord) -> RunRecord | None:
    """The record of the newest committed run over the same archives; None where it had another model."""
    wanted = like.configuration
    for record in committed_runs(results):
        found = record.configuration
        if found.archives == wanted.archives:
            return record if found.model_id == wanted.model_id else None
    return None
