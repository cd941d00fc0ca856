"""`pneumonia maintain RESULTS`: small files joined, and what dead runs left removed."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import DurationType, LocationType
from jobs.console.output import say
from pneumonia_core.errors import InvalidInput


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
    # Here, because `pneumonia maintain --help` needs neither deltalake nor pyarrow.
    from pneumonia_core.results import maintenance
    from pneumonia_core.results.table import existing_table
    from pneumonia_core.runs.upkeep import check_no_run_is_active, delete_leftovers
    from pneumonia_core.storage.location import open_location

    if not compact and vacuum is None:
        raise InvalidInput("say what to do: --compact, --vacuum 7d, or both.")
    location = open_location(results)
    table = existing_table(location)
    check_no_run_is_active(location)
    result: Result = {"state": "done"}
    if compact:
        joined = maintenance.compact(table)
        say(f"joined {joined.files_removed:,} files into {joined.files_added:,}")
        result |= {"files_removed": joined.files_removed, "files_added": joined.files_added}
    if vacuum is not None:
        files = maintenance.vacuum(table, vacuum)
        folders = delete_leftovers(location, vacuum)
        say(f"removed {files:,} data files and {folders:,} folders of dead runs")
        result |= {"data_files_deleted": files, "folders_deleted": folders}
    return {**result, "version": table.version()}


if __name__ == "__main__":
    run_command(command)
