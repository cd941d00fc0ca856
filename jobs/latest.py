"""`pneumonia latest RESULTS`: one row for each image that is still in its archive."""

from collections import Counter
from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import say
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.storage.files import write_stream
from pneumonia_core.storage.location import Location, open_location


@job_command("latest")
@click.argument("results", type=LocationType())
@click.option("--output", type=LocationType(), help="Write the rows to this .parquet or .csv file.")
def command(results: str, output: str | None) -> Result:
    """Give the newest row of every image of RESULTS that is still in its archive."""
    import duckdb

    from pneumonia_core.results.latest import latest_rows
    from pneumonia_core.results.table import find_table, reading_error_text
    from pneumonia_core.system.scratch import ScratchFolder

    if output is not None and not output.endswith((".parquet", ".csv")):
        raise InvalidInput(f"--output {output}: end the name in .parquet or .csv.")
    place = open_location(results)
    table = find_table(place)
    if table is None:
        raise InvalidInput(f"{results!r} has no results: give the --results of `pneumonia score`.")
    try:
        with ScratchFolder("latest") as spill:
            database, rows = latest_rows(table, _gone(place), spill)
            with database:
                counts = _write(rows, output)
    except (duckdb.Error, OSError) as error:
        raise PneumoniaError(
            f"the rows of {place.uri} could not be read{f', or not written to {output}' if output else ''} "
            f"({reading_error_text(error)}). Mend it and run the same command again."
        ) from error
    say(", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "no rows")
    if output is not None:
        say(f"written to {output}")
    return {
        "state": "done",
        "rows": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
        "output": output,
    }


def _gone(results: Location) -> dict[str, Location]:
    """For each archive the list of its gone images, from its newest run with a complete listing."""
    gone: dict[str, Location] = {}
    for record in committed_runs(results):
        if not record["listing_complete"]:
            continue
        for archive in record["configuration"]["archives"]:
            gone.setdefault(archive, results.child("runs").child(record["run_id"]).child("gone.parquet"))
    return gone


def _write(rows: Any, output: str | None) -> Counter[str]:
    """Write the rows where asked to; counts by finding, or by reason where rejected."""
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()

    def counted() -> Any:
        for batch in rows:
            for name in ("finding", "reject_reason"):
                for entry in batch[name].drop_null().value_counts().to_pylist():
                    counts[entry["values"]] += entry["counts"]
            yield batch

    if output is None:
        for _ in counted():
            pass
        return counts
    with write_stream(open_location(output)) as stream:
        writer = (pq.ParquetWriter if output.endswith(".parquet") else pacsv.CSVWriter)(stream, rows.schema)
        with writer:
            for batch in counted():
                writer.write_batch(batch)
    return counts


if __name__ == "__main__":
    run_command(command)
