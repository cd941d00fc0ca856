"""`pneumonia maintain RESULTS`: small files joined, and what dead runs left removed."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import DurationType, LocationType
from jobs.console.output import say
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.location import open_location


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
    # Here, because `pneumonia maintain --help` needs neither DuckDB nor deltalake.
    from pneumonia_core.runs.upkeep import maintain

    if not compact and vacuum is None:
        raise InvalidInput("say what to do: --compact, --vacuum 7d, or both.")
    done = maintain(open_location(results), compact, vacuum)
    result: Result = {"state": "done", "version": done.version}
    if joined := done.compaction:
        say(f"joined {joined.files_removed:,} files into {joined.files_added:,}")
        result |= {"files_removed": joined.files_removed, "files_added": joined.files_added}
    if deleted := done.deletion:
        say(f"removed {deleted.data_files:,} data files and {deleted.folders:,} folders of dead runs")
        result |= {"data_files_deleted": deleted.data_files, "folders_deleted": deleted.folders}
    return result


if __name__ == "__main__":
    run_command(command)
