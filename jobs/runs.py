"""`pneumonia runs RESULTS`: the scoring runs of a results folder."""

import json
from typing import TYPE_CHECKING, Final

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType
from jobs.console.output import aligned_columns, show
from pneumonia_core.storage.location import open_location
from pneumonia_core.system.printable import printable

if TYPE_CHECKING:
    from pneumonia_core.runs.record import RunRecord

# A run whose bundle, or whose version of the program, did not judge the domain lacks the last one.
_COUNTS: Final = ("listed", "scored", "rejected", "unchanged", "deferred", "out_of_domain")


@job_command("runs")
@click.argument("results", type=LocationType())
@click.option("--json", "as_json", is_flag=True, help="Every run's whole record, as JSON.")
def command(results: str, as_json: bool) -> Result:
    """Show the runs of RESULTS: date, state, counts, seconds."""
    # Here, because `pneumonia runs --help` needs neither DuckDB nor deltalake.
    from pneumonia_core.runs.upkeep import existing_runs

    records = existing_runs(open_location(results))
    if as_json:
        return {"runs": [record.as_json() for record in records]}
    show(_table(records))
    return {"runs": len(records)}


def _table(records: list["RunRecord"]) -> list[str]:
    header = [
        "run",
        "date",
        "state",
        *(name.replace("_", " ") for name in _COUNTS),
        "seconds",
        "exit",
        "archives",
    ]
    numeric = range(3, 3 + len(_COUNTS) + 2)
    return aligned_columns([header, *(_row(record) for record in records)], numeric)


def _row(record: "RunRecord") -> list[str]:
    counted = record.state in ("committed", "staged", "held")
    counts = [getattr(record.counts, name) if counted else None for name in _COUNTS]
    seconds = "" if record.result is None else str(record.result.seconds)
    exit_code = "" if record.exit_code is None else str(record.exit_code)
    archives = printable(json.dumps(record.configuration.archives)[1:-1])
    return [
        record.run_id,
        record.run_date,
        record.state,
        *("" if count is None else f"{count:,}" for count in counts),
        seconds,
        exit_code,
        archives,
    ]


if __name__ == "__main__":
    run_command(command)
