"""`pneumonia latest RESULTS`: one row for each image that is still in its archive."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import say
from pneumonia_core.storage.location import open_location


@job_command("latest")
@click.argument("results", type=LocationType())
@click.option("--model", metavar="ID", help="Rows of this model (model_id). Default: that of the newest run.")
@click.option("--output", type=LocationType(), help="Write the rows to this .parquet or .csv file.")
def command(results: str, model: str | None, output: str | None) -> Result:
    """Give the newest row of one model of every image of RESULTS that is still in its archive."""
    # Here, because `pneumonia latest --help` needs neither DuckDB nor deltalake.
    from pneumonia_core.runs.upkeep import write_latest

    latest = write_latest(open_location(results), None if output is None else open_location(output), model)
    counts = dict(sorted(latest.counts.items()))
    counted = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "no rows"
    say(counted if latest.model_id is None else f"model {latest.model_id}: {counted}")
    for other, images in latest.of_other_models.items():
        say(f"left out: {images:,} images that this model has not scored; --model {other} gives their rows")
    if output is not None:
        say(f"written to {output}")
    return {
        "state": "done",
        "model_id": latest.model_id,
        "rows": latest.counts.total(),
        "counts": counts,
        "of_other_models": dict(latest.of_other_models),
        "output": output,
    }


if __name__ == "__main__":
    run_command(command)
