"""A run's life in its folder RESULTS/runs/<run_id>: begun, resumed, finished."""

import datetime
import json
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from pneumonia_core.errors import InvalidInput
from pneumonia_core.runs.inventory import InventoryShard
from pneumonia_core.runs.record import ENDED, UNFINISHED, Run, RunRequest, delete_marker, difference, marker
from pneumonia_core.storage.errors import cannot_write
from pneumonia_core.storage.files import (
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


def open_run(results: Location, order: RunRequest, planned_version: int, fresh: bool) -> Run:
    """The unfinished run of this order, to be resumed, or a new one planned from this version of the table.

    A run that another process is working on is left alone. Raises InvalidInput when an unfinished run
    was asked something else, unless `fresh` abandons it; one whose rows the table has already is given then, for its
    last record.
    """
    unfinished = _unfinished_runs(results)
    try:
        run = _to_resume(results, unfinished, order, fresh)
    except BaseException:
        _unlock(unfinished)
        raise
    # The others are left to their own commands.
    _unlock([other for other in unfinished if other is not run])
    if run is None:
        return _new_run(results, order, planned_version)
    run.resumed = True
    return run


def _to_resume(results: Location, unfinished: Sequence[Run], order: RunRequest, fresh: bool) -> Run | None:
    # Of several the order's own comes first.
    for run in sorted(unfinished, key=lambda run: not run.answers(order)):
        if fresh and not _is_committed(results, run):
            run.finish("abandoned", exit_code=1)
        elif fresh or run.answers(order):
            return run
        else:
            changed = difference(run.record["configuration"], order.configuration())
            raise InvalidInput(
                f"the unfinished run {run.run_id} was asked something else:\n{changed}\n"
                "Run its own command to finish it, or add --fresh to abandon it."
            )
    return None


def _unlock(runs: Sequence[Run]) -> None:
    for run in runs:
        run.unlock()


def _is_committed(results: Location, run: Run) -> bool:
    """Whether the table has the rows of a run that only lacks its last record."""
    from pneumonia_core.results.commit import committed_version

    if run.record["state"] != "staged":
        return False
    return committed_version(results, run.run_id, run.record["planned_version"]) is not None


def read_runs(results: Location) -> list[dict[str, Any]]:
    """The records of all runs, oldest first."""
    records = []
    for run_id in list_names(results.child("runs")):
        place = results.child("runs").child(run_id).child("run.json")
        if exists(place):
            records.append(json.loads(read_bytes(place)))
    return records


def active_runs(results: Location) -> list[str]:
    """The unfinished runs that a process works on, or that are about to be committed."""
    names = list_names(results.child("runs").child(UNFINISHED))
    dead = _unfinished_runs(results)
    _unlock(dead)
    idle = {run.run_id for run in dead if run.record["state"] != "staged"}
    return [name for name in names if name not in idle and exists(results.child("runs").child(name))]


def delete_unmarked_run(folder: Location) -> bool:
    """Remove the folder of a run that died before it was marked as unfinished, with which no command goes on; whether it
    is one."""
    lock = take_lock(folder)
    if lock is None:
        return False
    broken_off = not exists(marker(folder, folder.name))
    if broken_off:
        delete_folder(folder)
    lock.release()
    return broken_off


def committed_runs(results: Location) -> Iterator[dict[str, Any]]:
    """The records of the committed runs, newest first."""
    for run_id in reversed(list_names(results.child("runs"))):
        place = results.child("runs").child(run_id).child("run.json")
        if exists(place):
            record = json.loads(read_bytes(place))
            if record["state"] == "committed":
                yield record


def last_committed(results: Location, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the newest committed run over the same archives with the same model, or None."""
    for record in committed_runs(results):
        if all(record["configuration"][key] == configuration[key] for key in ("archives", "model_id")):
            return record
    return None


def _new_run(results: Location, order: RunRequest, planned_version: int) -> Run:
    now = datetime.datetime.now(datetime.UTC)
    # Sorts by the table's version, which no clock can turn back, then by time to the microsecond; the random end keeps
    # two runs apart.
    run_id = f"{planned_version:06d}-{now:%Y%m%dT%H%M%S}-{now.microsecond:05x}{secrets.token_hex(1)}"
    folder = results.child("runs").child(run_id)
    record = {
        "format_version": 1,
        "run_id": run_id,
        "state": "listing",
        "run_date": order.run_date,
        "created_at": now.isoformat(timespec="microseconds"),
        "configuration": order.configuration(),
        "model": order.model,
        "versions": installed_versions(),
        "listing_complete": False,
        "planned_version": planned_version,
        "counts": {},
        "exit_code": None,
    }
    run = Run(folder, record)
    try:
        for name in ("inventory", "chunks", "parts", "begun"):
            make_folder(folder.child(name))
        run._lock = take_lock(folder)
        run.save()
        write_bytes(results.child("runs").child(UNFINISHED).child(run_id), b"")
    except OSError as error:
        run.discard()
        raise cannot_write(folder.uri, "cannot write there", error) from error
    return run


def _unfinished_runs(results: Location) -> list[Run]:
    """The unfinished runs that no living process holds, locked."""
    runs = []
    for run_id in list_names(results.child("runs").child(UNFINISHED)):
        folder = results.child("runs").child(run_id)
        place = folder.child("run.json")
        lock = take_lock(folder) if exists(place) else None
        if lock is None:
            continue
        if not exists(marker(folder, run_id)):
            # Its last owner has ended it meanwhile.
            lock.release()
            continue
        record = json.loads(read_bytes(place))
        if record["state"] in ENDED:
            delete_marker(folder, run_id)
            lock.release(delete=False)
            continue
        run = Run(folder, record, [InventoryShard(**values) for values in record["batches"]])
        run._lock = lock
        runs.append(run)
    return runs


def any_model_counts(results: Location, order: RunRequest, planner: Any) -> bool:
    """Whether a row under whatever model makes an image unchanged, by --rescore, given now or earlier.

    Raises InvalidInput where a new model meets a table with rows and nothing was said.
    """
    choice = order.rescore or remembered_rescore(results).get(order.model_id)
    if choice is None and not planner.table_is_empty and not planner.knows_model():
        raise InvalidInput(
            f"the model {order.model_id} is new to {results.uri}, which has rows of another model. "
            "Add --rescore all to score every image with it, or --rescore none to score only new and "
            "changed images."
        )
    return choice == "none"


def remember_rescore(results: Location, order: RunRequest) -> None:
    """--rescore is asked for once per model: later nights go by the same answer."""
    if order.rescore:
        known = {**remembered_rescore(results), order.model_id: order.rescore}
        write_bytes(results.child("runs").child(".rescore.json"), json.dumps(known).encode())


def remembered_rescore(results: Location) -> dict[str, str]:
    place = results.child("runs").child(".rescore.json")
    return dict(json.loads(read_bytes(place))) if exists(place) else {}
