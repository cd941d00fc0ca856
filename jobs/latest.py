"""`pneumonia latest RESULTS`: one row for each image that is still in its archive."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import say
from pneumonia_core.storage.location import open_location


@job_command("latest")
@click.argument("results", type=LocationType())
@click.option("--output", type=LocationType(), help="Write the rows to this .parquet or .csv file.")
def command(results: str, output: str | None) -> Result:
    """Give the newest row of every image of RESULTS that is still in its archive."""
    # Here, because `pneumonia latest --help` needs neither DuckDB nor deltalake.
    from pneumonia_core.runs.upkeep import write_latest

    counts = write_latest(open_location(results), None if output is None else open_location(output))
    say(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "no rows")
    if output is not None:
        say(f"written to {output}")
    return {
        "state": "done",
        "rows": counts.total(),
        "counts": dict(sorted(counts.items())),
        "output": output,
    }


if __name__ == "__main__":
    run_command(command)
