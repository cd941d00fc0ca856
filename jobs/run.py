"""A run's life in its folder RESULTS/runs/<run_id>: begun, resumed, finished."""

import datetime
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from jobs.lock import FileLock, Lease, take_lock
from pneumonia_core.errors import InvalidInput
from pneumonia_core.failpoints import failpoint
from pneumonia_core.inventory import Batch
from pneumonia_core.manifests import ListingRules
from pneumonia_core.places import (
    Place,
    cannot_write,
    delete_file,
    delete_folder,
    exists,
    list_names,
    make_folder,
    read_bytes,
    write_bytes,
)
from pneumonia_core.versions import installed_versions

UNFINISHED: Final = ".unfinished"
ENDED: Final = ("committed", "abandoned")


@dataclass(frozen=True)
class Order:
    """What a scoring run is asked to do. A resumed run must be asked the same."""

    archives: tuple[str, ...]
    model: str
    model_id: str
    engine: str
    precision: str
    rescore: str | None
    retry_rejected: bool
    limit: int | None
    chunk_size: int
    run_date: str
    date_is_given: bool
    rules: ListingRules = field(default_factory=ListingRules)

    def configuration(self) -> dict[str, Any]:
        """What must be the same when a run is resumed. The date is the run's own, so that a night that
        died is finished under its date."""
        return {
            "archives": list(self.archives),
            "carry": list(self.rules.carry),
            "allow_prefix": list(self.rules.allow_prefixes),
            "model_id": self.model_id,
            "engine": self.engine,
            "precision": self.precision,
            "rescore": self.rescore,
            "retry_rejected": self.retry_rejected,
            "limit": self.limit,
            "chunk_size": self.chunk_size,
        }


@dataclass
class Run:
    """An open run: its folder, its record (what run.json holds) and the lock that says it is alive."""

    folder: Place
    record: dict[str, Any]
    batches: list[Batch] = field(default_factory=list)
    resumed: bool = False
    _lock: FileLock | Lease | None = None

    @property
    def run_id(self) -> str:
        return str(self.record["run_id"])

    def answers(self, order: Order) -> bool:
        """Whether the run was asked what the order asks."""
        return not _difference(self.record["configuration"], order.configuration())

    def save(self, **changes: Any) -> None:
        """Write run.json, whole, with these fields changed."""
        failpoint("save.before", str(changes.get("state", "")))
        if self._lock is not None:
            self._lock.check()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.record.update(changes, updated_at=now, batches=[batch.as_json() for batch in self.batches])
        text = json.dumps(self.record, indent=2, default=str) + "\n"
        write_bytes(self.folder.child("run.json"), text.encode())
        failpoint("save.after", str(changes.get("state", "")))

    def finish(self, state: str, **changes: Any) -> None:
        """The run has ended: record it, and let no later command resume it."""
        self.save(state=state, **changes)
        _delete_marker(self.folder, self.run_id)
        failpoint("cleanup")
        for name in ("parts", "chunks", "begun"):
            delete_folder(self.folder.child(name))

    def discard(self) -> None:
        """Remove a run that found nothing to do."""
        _delete_marker(self.folder, self.run_id)
        # Under its lock: another command must not resume what is being removed.
        delete_folder(self.folder)
        self.unlock()

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


def open_run(results: Place, order: Order, planned_version: int, fresh: bool) -> Run:
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


def _to_resume(results: Place, unfinished: Sequence[Run], order: Order, fresh: bool) -> Run | None:
    # Of several the order's own comes first.
    for run in sorted(unfinished, key=lambda run: not run.answers(order)):
        if fresh and not _is_committed(results, run):
            run.finish("abandoned", exit_code=1)
        elif fresh or run.answers(order):
            return run
        else:
            difference = _difference(run.record["configuration"], order.configuration())
            raise InvalidInput(
                f"the unfinished run {run.run_id} was asked something else:\n{difference}\n"
                "Run its own command to finish it, or add --fresh to abandon it."
            )
    return None


def _unlock(runs: Sequence[Run]) -> None:
    for run in runs:
        run.unlock()


def _is_committed(results: Place, run: Run) -> bool:
    """Whether the table has the rows of a run that only lacks its last record."""
    from pneumonia_core.results import committed_version

    if run.record["state"] != "staged":
        return False
    return committed_version(results, run.run_id, run.record["planned_version"]) is not None


def read_runs(results: Place) -> list[dict[str, Any]]:
    """The records of all runs, oldest first."""
    records = []
    for run_id in list_names(results.child("runs")):
        place = results.child("runs").child(run_id).child("run.json")
        if exists(place):
            records.append(json.loads(read_bytes(place)))
    return records


def living_or_staged(results: Place) -> list[str]:
    """The unfinished runs that a process works on, or that are about to be committed."""
    names = list_names(results.child("runs").child(UNFINISHED))
    dead = _unfinished_runs(results)
    _unlock(dead)
    idle = {run.run_id for run in dead if run.record["state"] != "staged"}
    return [name for name in names if name not in idle and exists(results.child("runs").child(name))]


def discard_broken_off(folder: Place) -> bool:
    """Remove the folder of a run that died before it was marked as unfinished, with which no command goes on; whether it
    is one."""
    lock = take_lock(folder)
    if lock is None:
        return False
    broken_off = not exists(_marker(folder, folder.path.rpartition("/")[2]))
    if broken_off:
        delete_folder(folder)
    lock.release()
    return broken_off


def committed_runs(results: Place) -> Iterator[dict[str, Any]]:
    """The records of the committed runs, newest first."""
    for run_id in reversed(list_names(results.child("runs"))):
        place = results.child("runs").child(run_id).child("run.json")
        if exists(place):
            record = json.loads(read_bytes(place))
            if record["state"] == "committed":
                yield record


def last_committed(results: Place, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the newest committed run over the same archives with the same model, or None."""
    for record in committed_runs(results):
        if all(record["configuration"][key] == configuration[key] for key in ("archives", "model_id")):
            return record
    return None


def _new_run(results: Place, order: Order, planned_version: int) -> Run:
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
        raise cannot_write(folder, "cannot write there", error) from error
    return run


def _unfinished_runs(results: Place) -> list[Run]:
    """The unfinished runs that no living process holds, locked."""
    runs = []
    for run_id in list_names(results.child("runs").child(UNFINISHED)):
        folder = results.child("runs").child(run_id)
        place = folder.child("run.json")
        lock = take_lock(folder) if exists(place) else None
        if lock is None:
            continue
        if not exists(_marker(folder, run_id)):
            # Its last owner has ended it meanwhile.
            lock.release()
            continue
        record = json.loads(read_bytes(place))
        if record["state"] in ENDED:
            _delete_marker(folder, run_id)
            lock.release(delete=False)
            continue
        run = Run(folder, record, [Batch(**values) for values in record["batches"]])
        run._lock = lock
        runs.append(run)
    return runs


def _marker(folder: Place, run_id: str) -> Place:
    """The file that says that the run of this folder is unfinished."""
    runs = Place(folder.uri.rpartition("/")[0], folder.fs, folder.path.rpartition("/")[0])
    return runs.child(UNFINISHED).child(run_id)


def _delete_marker(folder: Place, run_id: str) -> None:
    delete_file(_marker(folder, run_id))


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    return "\n".join(
        f"  {key}: {json.dumps(old.get(key))} then, {json.dumps(new.get(key))} now"
        for key in new
        if old.get(key) != new.get(key)
    )
