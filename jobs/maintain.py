"""`pneumonia maintain RESULTS`: small files joined, and what dead runs left removed."""

import datetime
import math
from typing import Any, Final

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import DurationType, LocationType
from jobs.console.output import say
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.runs.record import ENDED
from pneumonia_core.runs.registry import active_runs, delete_unmarked_run, read_runs
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_folder
from pneumonia_core.storage.location import Location, open_location

_LEFTOVERS: Final = ("parts", "chunks", "begun")


@job_command("maintain")
@click.argument("results", type=LocationType())
@click.option("--compact", is_flag=True, help="Join small files; the rows stay the same.")
@click.option(
    "--vacuum",
    type=DurationType(),
    metavar="AGE",
    help="Delete files that no version names and that are older: 7d, 12h.",
)
def command(results: str, compact: bool, vacuum: float | None) -> Result:
    """Keep the table of RESULTS quick: join its small files, remove what dead runs left.

    Refused while a run is at work or staged: it would have to be planned again. Readers of versions older
    than AGE lose their files.
    """
    from deltalake.exceptions import DeltaError

    from pneumonia_core.results.table import find_table

    if not compact and vacuum is None:
        raise InvalidInput("say what to do: --compact, --vacuum 7d, or both.")
    place = open_location(results)
    table = find_table(place)
    if table is None:
        raise InvalidInput(f"{results!r} has no results: give the --results of `pneumonia score`.")
    busy = active_runs(place)
    if busy:
        raise PneumoniaError(f"the run {busy[0]} is at work or staged. Run its command to its end first.")
    try:
        joined = _compact(table) if compact else {}
        removed = {} if vacuum is None else _vacuum(place, table, vacuum)
    except (DeltaError, OSError) as error:
        raise PneumoniaError(
            f"the table could not be changed ({error_text(error)}). Mend it and run the same command again."
        ) from error
    return {"state": "done", "version": table.version(), **joined, **removed}


def _compact(table: Any) -> dict[str, int]:
    metrics = table.optimize.compact()
    say(f"joined {metrics['numFilesRemoved']:,} files into {metrics['numFilesAdded']:,}")
    return {"files_removed": metrics["numFilesRemoved"], "files_added": metrics["numFilesAdded"]}


def _vacuum(results: Location, table: Any, age_s: float) -> dict[str, int]:
    """Delete data files that no version of the table names, and the folders of runs that ended or broke off
    at their very beginning."""
    deleted = table.vacuum(
        retention_hours=math.ceil(age_s / 3600), dry_run=False, enforce_retention_duration=False, full=True
    )
    folders = 0
    oldest = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=age_s)
    for record in read_runs(results):
        folder = results.child("runs").child(record["run_id"])
        if datetime.datetime.fromisoformat(record["updated_at"]) > oldest:
            continue
        if record["state"] in ENDED:
            folders += sum(_removed(folder.child(name)) for name in _LEFTOVERS)
        else:
            folders += delete_unmarked_run(folder)
    say(f"removed {len(deleted):,} data files and {folders:,} folders of dead runs")
    return {"data_files_deleted": len(deleted), "folders_deleted": folders}


def _removed(folder: Location) -> int:
    from pneumonia_core.storage.files import exists

    if not exists(folder):
        return 0
    delete_folder(folder)
    return 1


if __name__ == "__main__":
    run_command(command)
