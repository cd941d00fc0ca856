"""Score archives of chest X-rays into the results table: list, plan, score, check, commit."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import (
    DurationType,
    LocationType,
    address_option,
    allow_prefix_option,
    engine_option,
    num_cpus_option,
    precision_option,
)
from jobs.scoring.options import CHUNK_SIZE, ScoreOptions


@job_command("score")
@click.argument("archive", nargs=-1, required=True, type=LocationType())
@click.option(
    "--model", required=True, type=LocationType(), help="Bundle to score with; PATH@sha256:HEX pins it."
)
@click.option(
    "--results",
    required=True,
    type=LocationType(),
    help="Folder of the results: the table is in its scores/.",
)
@engine_option
@precision_option
@click.option("--date", help="Logical date of the run, 2026-01-31. Default: today, UTC.")
@click.option("--retry-rejected", is_flag=True, help="Try every rejected image again.")
@click.option(
    "--rescore", type=click.Choice(["all", "none"]), help="What a new model does with images that have rows."
)
@click.option("--limit", type=click.IntRange(min=1), help="Score at most so many images, defer the rest.")
@click.option(
    "--deadline",
    type=DurationType(),
    help="Commit what is done after so long (90s, 30m, 6h), defer the rest.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be scored, and stop.")
@click.option("--fresh", is_flag=True, help="Abandon an unfinished run and start over.")
@click.option(
    "--max-reject-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="More rejects: exit 3.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(1, 4096),
    default=CHUNK_SIZE,
    show_default=True,
    help="Images per chunk.",
)
@click.option("--carry", metavar="A,B", help="Columns of a manifest that go through to the table, as text.")
@allow_prefix_option
@click.option("--shape", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True)
@click.option("--actors", help="Number of scoring actors, or least,most. Default: as many as fit.")
@click.option(
    "--actor-cpus",
    type=click.FloatRange(min=0.1),
    help="CPUs of a scoring actor. Default: an equal share of its node's, up to 8. "
    "Less for very small images.",
)
@click.option(
    "--actor-gpus",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of a GPU of a scoring actor (shape gpu), such as 0.5. Default: 1, or less where --actors are "
    "more than the GPUs.",
)
@click.option("--decode-cpus", type=click.FloatRange(min=0.1), help="CPUs of a decoding task (shape gpu).")
@address_option
@num_cpus_option
def command(results: str, dry_run: bool, **options: Any) -> Result:  # noqa: ANN401 - click's options
    """Score every chest X-ray of ARCHIVE... that the results do not have yet.

    An archive is a folder or bucket with images, tars and zips in it, one such file, or a manifest: a Parquet
    or CSV table with a column `uri`.

    One row for each image: the probabilities of normal, bacterial and viral pneumonia, or why there are
    none. The same command resumes a run that died, and scores only what is new or changed.
    """
    # The room imports the engines and the table's libraries, which `--help` does without.
    from jobs.scoring.run import score

    return score(results, ScoreOptions(**options), dry_run=dry_run)


if __name__ == "__main__":
    run_command(command)
