"""Runs that a gate has held back: opened to be accepted, abandoned, and compared with what came since."""

import contextlib
import datetime
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.results.delta_errors import as_os_error, retry_on_lost_connection
from pneumonia_core.results.table_view import TableView, comparing_with_table
from pneumonia_core.runs.inventory import read_inventory
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.registry import has_record, read_runs
from pneumonia_core.runs.run import Run, marker, read_record, run_folder
from pneumonia_core.runs.unfinished import registry_lock
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.lock import take_lock
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.scratch import ScratchFolder

_MEMORY_MB = 192


@contextlib.contextmanager
def opened_held_run(results: Location, run_id: str) -> Iterator[Run]:
    """The held run of this name, locked, and marked as unfinished while it is open.

    Also one whose acceptance was cut short. Raises InvalidInput where the run is not held, PneumoniaError
    where another process works on it.
    """
    if not has_record(results, run_id):
        raise InvalidInput(f"{results.uri} has no run {run_id!r}.", Remedy.NAME_HELD_RUN)
    with registry_lock(results):
        run = _locked(results, run_id)
    with run:
        try:
            # Without a marker, maintenance could delete the files that are about to be committed.
            write_bytes(marker(results, run_id), b"")
            yield run
        finally:
            if run.record.state == "held":
                delete_file(marker(results, run_id))


def _locked(results: Location, run_id: str) -> Run:
    folder = run_folder(results, run_id)
    lock = take_lock(folder)
    if lock is None:
        raise PneumoniaError(f"another process works on run {run_id}.", Remedy.RUN_AGAIN)
    try:
        record = read_record(folder)
        if record.state != "held" and not (record.state == "staged" and record.accepted):
            raise InvalidInput(
                f"run {run_id} is not held: its state is {record.state}.", Remedy.NAME_HELD_RUN
            )
    except BaseException:
        lock.release()
        raise
    return Run(results, record, lock, resumed=True)


def abandon_held_runs(results: Location, request: RunRequest) -> list[str]:
    """Abandon the held runs that were started with the options of this request; returns their names."""
    held = [record for record in read_runs(results) if record.state == "held" and record.matches(request)]
    for record in held:
        with opened_held_run(results, record.run_id) as run:
            run.finish("abandoned")
    return [record.run_id for record in held]


def outdated_rows(run: Run, table: DeltaTable) -> frozenset[int]:
    """The ids of the run's rows whose image has got a row since the run was planned, under any model.

    They are not to be committed: the table would have an older score as its last. Raises PneumoniaError where
    the table cannot be read.
    """
    record, view = run.record, TableView(table)
    rules = PlanningRules(
        record.configuration.model_id,
        bool(record.any_model),
        record.configuration.retry_rejected,
        record.configuration.limit,
    )
    with Planner(run.folder, view, rules) as planner:
        return planner.superseded(record.shards) | _rows_with_newer(run, table, view)


@comparing_with_table()
def _rows_with_newer(run: Run, table: DeltaTable, view: TableView) -> frozenset[int]:
    newer_runs = pa.array(_runs_since(table, run.record.planned_version), pa.string())
    # Beside the log, whose old entries may have been cleaned up, counts the clock, which may have been wrong.
    created_at = pa.scalar(
        datetime.datetime.fromisoformat(run.record.created_at), pa.timestamp("us", tz="UTC")
    )
    rows = view.read("image_uri", "run_id", "scored_at")

    def newer() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            is_newer = pc.or_(
                pc.is_in(batch["run_id"].cast(pa.string()), value_set=newer_runs),
                pc.greater(batch["scored_at"], created_at),
            )
            yield batch.filter(is_newer)

    with ScratchFolder("held") as spill, open_duckdb(spill, _MEMORY_MB, threads=2) as database:
        database.register("newer", pa.RecordBatchReader.from_batches(rows.schema, newer()))
        inventory = read_inventory(run.folder, run.record.shards, "row_id", "image_uri", "disposition")
        database.register("inventory", inventory)
        query = """
            SELECT DISTINCT i.row_id FROM newer n JOIN inventory i USING (image_uri)
            WHERE i.disposition = 'score'
        """
        return frozenset(row[0] for row in database.sql(query).fetchall())


def _runs_since(table: DeltaTable, version: int) -> list[str]:
    """The runs that were committed after this version of the table, as far as its log tells."""
    try:
        entries = retry_on_lost_connection(lambda: table.history(max(table.version() - version, 0) or 1))
    except DeltaError as error:
        raise as_os_error(error) from error
    return [entry["run_id"] for entry in entries if "run_id" in entry and entry["version"] > version]
