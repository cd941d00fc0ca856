"""`pneumonia report RESULTS`: the page of a scoring run again."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import say
from pneumonia_core.storage.location import open_location


@job_command("report")
@click.argument("results", type=LocationType())
@click.option("--run", metavar="ID", help="The run.  [default: the newest]")
@click.option("--output", type=LocationType(), help="Write the page here.  [default: run.html of the run]")
def command(results: str, run: str | None, output: str | None) -> Result:
    """Write the page of a run of RESULTS again, from its record.

    A run that is at work, or has died, has a page only with --output. Scores and rows are not touched.
    """
    # Here, because `pneumonia report --help` needs neither DuckDB nor deltalake.
    from pneumonia_core.reports.run_page import run_page
    from pneumonia_core.runs.upkeep import run_named, write_page

    location = open_location(results)
    record = run_named(location, run)
    page = run_page(record.as_json())
    written = write_page(location, record, page, None if output is None else open_location(output))
    say(f"run {record.run_id} of {record.run_date} is {record.state}: {written.uri}")
    return {"state": "done", "run_id": record.run_id, "run_state": record.state, "page": written.uri}


if __name__ == "__main__":
    run_command(command)
