"""The scoring runs of a results folder: opened, resumed, abandoned and listed."""

import datetime
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy, differing_options
from pneumonia_core.results.commit import committed_version
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.record import ENDED, RunRecord, RunRequest
from pneumonia_core.runs.run import (
    WORKING_FOLDERS,
    Run,
    marker,
    read_record,
    run_folder,
    unfinished_folder,
)
from pneumonia_core.storage.errors import cannot_write
from pneumonia_core.storage.files import (
    delete_file,
    delete_folder,
    exists,
    list_names,
    make_folder,
    read_bytes,
    write_bytes,
)
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.lock import take_lock
from pneumonia_core.system.environment import installed_versions

_RESCORE: Final = ".rescore.json"


def open_run(results: Location, request: RunRequest, planned_version: int, fresh: bool) -> Run:
    """The unfinished run of this request, or a new run that is planned from this version of the table.

    Ignores runs that a living process works on. Raises InvalidInput where an unfinished run was started with
    other options; `fresh` abandons the unfinished runs instead. A run whose rows are in the table lacks only
    its last record, and is returned.
    """
    idle = _idle_runs(results)
    run: Run | None = None
    try:
        run = _abandon(idle, request) if fresh else _run_to_resume(idle, request)
    finally:
        _unlock([other for other in idle if other is not run])
    return run or new_run(results, request, planned_version)


def _run_to_resume(idle: Sequence[Run], request: RunRequest) -> Run | None:
    """The run that was started with the options of the request; None where no run is unfinished."""
    if not idle:
        return None
    run = next((run for run in idle if run.matches(request)), None)
    if run is None:
        changed = differing_options(asdict(idle[0].record.configuration), asdict(request.configuration()))
        raise InvalidInput(
            f"run {idle[0].run_id} is unfinished and was started with other options: {changed}. "
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


def _unlock(runs: Sequence[Run]) -> None:
    for run in runs:
        run.unlock()


def version_with_rows(run: Run) -> int | None:
    """The version of the table that has the rows of a run; None where the run is not committed.

    A run with a version lacks only its last record.
    """
    if run.record.state != "staged":
        return None
    return committed_version(run.results, run.run_id, run.record.planned_version)


def read_runs(results: Location) -> list[RunRecord]:
    """The records of all runs, oldest first."""
    folders = (run_folder(results, run_id) for run_id in list_names(results.child("runs")))
    return [read_record(folder) for folder in folders if exists(folder.child("run.json"))]


def active_runs(results: Location) -> list[str]:
    """The ids of the unfinished runs that a process works on, or that are staged for their commit."""
    names = list_names(unfinished_folder(results))
    idle = _idle_runs(results)
    _unlock(idle)
    resumable = {run.run_id for run in idle if run.record.state != "staged"}
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


def committed_runs(results: Location) -> Iterator[RunRecord]:
    """The records of the committed runs, newest first."""
    for run_id in reversed(list_names(results.child("runs"))):
        folder = run_folder(results, run_id)
        if exists(folder.child("run.json")) and (record := read_record(folder)).state == "committed":
            yield record


def last_committed(results: Location, like: RunRecord) -> RunRecord | None:
    """The record of the newest committed run over the same archives; None where it had another model."""
    wanted = like.configuration
    for record in committed_runs(results):
        found = record.configuration
        if found.archives == wanted.archives:
            return record if found.model_id == wanted.model_id else None
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


def _idle_runs(results: Location) -> list[Run]:
    """The unfinished runs that no living process works on, each locked by this process."""
    runs: list[Run] = []
    try:
        for run_id in list_names(unfinished_folder(results)):
            if (run := _lock_if_idle(results, run_id)) is not None:
                runs.append(run)
    except BaseException:
        _unlock(runs)
        raise
    return runs


def _lock_if_idle(results: Location, run_id: str) -> Run | None:
    folder = run_folder(results, run_id)
    lock = take_lock(folder) if exists(folder.child("run.json")) else None
    if lock is None:
        return None
    if not exists(marker(results, run_id)):
        # Its last owner has ended it since the markers were listed.
        lock.release()
        return None
    try:
        record = read_record(folder)
    except BaseException:
        lock.release(delete=False)
        raise
    if record.state in ENDED:
        # Its last owner died between its last record and the deletion of its marker.
        delete_file(marker(results, run_id))
        lock.release(delete=False)
        return None
    return Run(results, record, lock, resumed=True)


def any_model_counts(results: Location, request: RunRequest, view: TableView) -> bool:
    """Whether a row under another model makes an image unchanged: --rescore none, given now or earlier.

    Raises InvalidInput where a new model meets a table with rows and no run has decided it yet.
    """
    choice = request.rescore or remembered_rescore(results).get(request.model_id)
    if choice is None and not view.is_empty and not view.knows_model(request.model_id):
        raise InvalidInput(
            f"the model {request.model_id} is new to {results.uri}, which has rows of another model.",
            Remedy.SAY_RESCORE,
        )
    return choice == "none"


def remember_rescore(results: Location, request: RunRequest) -> None:
    """Keep the request's choice for its model: a user gives it once, and later runs follow it."""
    if request.rescore:
        known = {**remembered_rescore(results), request.model_id: request.rescore}
        write_bytes(results.child("runs").child(_RESCORE), json.dumps(known).encode())


def remembered_rescore(results: Location) -> dict[str, str]:
    """The choice that was made for each model: `all` or `none`."""
    location = results.child("runs").child(_RESCORE)
    return dict(json.loads(read_bytes(location))) if exists(location) else {}
