"""A results folder after scoring: its runs are listed, its latest rows written, its table maintained."""

import contextlib
import datetime
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.results import latest, maintenance
from pneumonia_core.results.table import existing_table
from pneumonia_core.runs.inventory import Inventory, read_inventories
from pneumonia_core.runs.listing_round import is_kept
from pneumonia_core.runs.record import CLOSED, ENDED, RunRecord
from pneumonia_core.runs.registry import (
    active_runs,
    committed_runs,
    delete_unmarked_run,
    has_record,
    read_runs,
    runs_newest_first,
)
from pneumonia_core.runs.run import WORKING_FOLDERS, read_record, run_folder
from pneumonia_core.storage.errors import cannot_write, error_text
from pneumonia_core.storage.files import delete_folder, exists, list_names, write_bytes
from pneumonia_core.storage.location import Location


def existing_runs(results: Location) -> list[RunRecord]:
    """The records of all runs, oldest first.

    Raises InvalidInput where the folder has none, PneumoniaError where they cannot be read.
    """
    with _accessing(results):
        if not exists(results.child("runs")):
            raise InvalidInput(f"{results.uri} has no runs.", Remedy.SCORED_RESULTS)
        return read_runs(results)


def run_named(results: Location, run_id: str | None) -> RunRecord:
    """The record of this run, of the newest one without a name. Raises as `existing_runs`."""
    with _accessing(results):
        if run_id is not None and has_record(results, run_id):
            return read_record(run_folder(results, run_id))
        if run_id is None and (newest := next(runs_newest_first(results), None)) is not None:
            return newest
        if run_id is not None and list_names(results.child("runs")):
            raise InvalidInput(f"{results.uri} has no run {run_id!r}.", Remedy.NAME_RUN)
    raise InvalidInput(f"{results.uri} has no runs.", Remedy.SCORED_RESULTS)


def write_page(results: Location, record: RunRecord, page: str, output: Location | None) -> Location:
    """Write the page of a run, in its folder where no `output` is given; where it was written.

    Raises InvalidInput where that run has not ended, PneumoniaError where the page cannot be written.
    """
    if output is None and record.state not in CLOSED:
        raise InvalidInput(
            f"run {record.run_id} has not ended (it is {record.state}), and writes this page when it ends.",
            Remedy.PAGE_ELSEWHERE,
        )
    file = output or run_folder(results, record.run_id).child("run.html")
    try:
        write_bytes(file, page.encode())
    except OSError as error:
        raise cannot_write(file.uri, "cannot write there", error) from error
    return file


def write_latest(results: Location, output: Location | None, model_id: str | None = None) -> latest.Latest:
    """Write a model's newest row of each image that is still in its archive to a .parquet or .csv file.

    Without `output` the rows are only counted. Without a `model_id` they are those of the newest run's model.
    Raises InvalidInput where there are no results, none of the model, or `output` has another ending. Raises
    PneumoniaError where the table cannot be read or the file cannot be written.
    """
    if output is not None and not output.name.endswith(latest.FORMATS):
        raise InvalidInput(f"{output.uri}: end the name in {' or '.join(latest.FORMATS)}.")
    table = existing_table(results)
    return latest.write_latest(table, _gone(results), output, model_id, _newest_model(results))


def _newest_model(results: Location) -> str | None:
    """The model of the newest run that was committed; None where no record of one is left."""
    with _accessing(results):
        newest = next(committed_runs(results), None)
        return None if newest is None else newest.configuration.model_id


def _gone(results: Location) -> latest.Gone:
    """The lists of gone images, and what runs have listed since that could not tell what has gone."""
    since: list[Inventory] = []
    known: set[str] = set()
    with _accessing(results):
        for record in committed_runs(results):
            archives = set(record.configuration.archives)
            if record.gone is not None:
                known |= archives
            elif archives - known:
                since.append(Inventory(run_folder(results, record.run_id), record.shards))
        kept = [inventory for inventory in since if is_kept(inventory)]
    return latest.Gone(gone_lists(results), lambda: read_inventories(kept, "image_uri"))


def gone_lists(results: Location, wanted: Collection[str] | None = None) -> dict[str, Location]:
    """For each archive the list of its gone images, from the newest run that could tell them.

    Where archives are `wanted`, no run is read that is older than the lists of these.
    """
    gone: dict[str, Location] = {}
    with _accessing(results):
        for record in committed_runs(results):
            if record.gone is None:
                continue
            for archive in record.configuration.archives:
                gone.setdefault(archive, run_folder(results, record.run_id).child("gone.parquet"))
            if wanted is not None and gone.keys() >= set(wanted):
                break
    return gone


@dataclass(frozen=True)
class Maintained:
    """The table's version after maintenance, and what was done."""

    version: int
    compaction: maintenance.Compaction | None
    deletion: "Deletion | None"


@dataclass(frozen=True)
class Deletion:
    """How many data files and folders of runs were deleted."""

    data_files: int
    folders: int


def maintain(results: Location, compact: bool, vacuum_age_s: float | None) -> Maintained:
    """Join the table's small files; delete what is older than `vacuum_age_s` seconds and no longer needed.

    Raises InvalidInput where there are no results, PneumoniaError where a run is active or the storage fails.
    """
    table = existing_table(results)
    _check_no_run_is_active(results)
    compaction = maintenance.compact(table) if compact else None
    deletion = None
    if vacuum_age_s is not None:
        deletion = Deletion(maintenance.vacuum(table, vacuum_age_s), _delete_leftovers(results, vacuum_age_s))
    return Maintained(table.version(), compaction, deletion)


def _check_no_run_is_active(results: Location) -> None:
    with _accessing(results):
        if active := active_runs(results):
            raise PneumoniaError(f"run {active[0]} is at work or staged. Run its command to its end first.")


def _delete_leftovers(results: Location, age_s: float) -> int:
    """Delete what is older than `age_s` seconds: folders that ended runs left, and runs that died unmarked.

    Returns how many folders were deleted.
    """
    folders = 0
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    with _accessing(results):
        for record in read_runs(results):
            if datetime.datetime.fromisoformat(record.updated_at) > oldest:
                continue
            if record.state in ENDED:
                folder = run_folder(results, record.run_id)
                folders += sum(_deleted(folder.child(name)) for name in WORKING_FOLDERS)
            elif record.state != "held":
                folders += delete_unmarked_run(results, record.run_id)
    return folders


def _deleted(folder: Location) -> bool:
    found = exists(folder)
    if found:
        delete_folder(folder)
    return found


@contextlib.contextmanager
def _accessing(results: Location) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PneumoniaError(
            f"{results.uri}: the runs could not be read ({error_text(error)}). Fix that and run the same "
            "command again."
        ) from error
