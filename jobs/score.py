"""Score archives of chest X-rays into the results table: list, plan, score, check, commit."""

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
from jobs.console.output import printable
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy


def _parse_columns(text: str | None) -> tuple[str, ...]:
    """The names in `a,b`, each once."""
    names = (name.strip() for name in (text or "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def _parse_actors(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        least, _, most = text.partition(",")
        pair = int(least), int(most or least)
    except ValueError:
        pair = 0, 0
    if not 1 <= pair[0] <= pair[1]:
        raise InvalidInput(f"--actors {text!r}: write one number, or the least and the most: 2,8.")
    return pair


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
    default=256,
    show_default=True,
    help="Images per chunk.",
)
@click.option("--carry", metavar="A,B", help="Columns of a manifest that go through to the table, as text.")
@allow_prefix_option
@click.option("--shape", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True)
@click.option("--actors", help="Number of scoring actors, or least,most.")
@click.option(
    "--actor-cpus",
    type=click.FloatRange(min=0.1),
    help="CPUs of a scoring actor (shape cpu). Default: those of a node, up to 8. "
    "Less for very small images.",
)
@click.option("--decode-cpus", type=click.FloatRange(min=0.1), help="CPUs of a decoding task (shape gpu).")
@address_option
@num_cpus_option
def command(
    archive: tuple[str, ...],
    model: str,
    results: str,
    engine: str,
    precision: str,
    date: str | None,
    retry_rejected: bool,
    rescore: str | None,
    limit: int | None,
    deadline: float | None,
    dry_run: bool,
    fresh: bool,
    max_reject_rate: float,
    chunk_size: int,
    carry: str | None,
    allow_prefix: tuple[str, ...],
    shape: str,
    actors: str | None,
    actor_cpus: float | None,
    decode_cpus: float | None,
    address: str | None,
    num_cpus: int | None,
) -> Result:
    """Score every chest X-ray of ARCHIVE... that the results do not have yet.

    An archive is a folder or bucket with images, tars and zips in it, one such file, or a manifest: a Parquet
    or CSV table with a column `uri`.

    One row for each image: the probabilities of normal, bacterial and viral pneumonia, or why there are
    none. The same command resumes a run that died, and scores only what is new or changed.
    """
    from jobs.scoring.context import ExecutionOptions
    from jobs.scoring.dry_run import dry_run as plan_only
    from jobs.scoring.request import make_request
    from jobs.scoring.run import score_archives
    from pneumonia_core.archives.manifests import ListingRules
    from pneumonia_core.storage.errors import error_text
    from pneumonia_core.storage.files import make_folder
    from pneumonia_core.storage.location import open_location

    rules = ListingRules(_parse_columns(carry), tuple(open_location(text).uri for text in allow_prefix))
    request = make_request(
        archive,
        model,
        engine=engine,
        precision=precision,
        date=date,
        retry_rejected=retry_rejected,
        rescore=rescore,
        limit=limit,
        chunk_size=chunk_size,
        rules=rules,
    )
    options = ExecutionOptions(
        address=address,
        num_cpus=num_cpus,
        shape=shape,
        actors=_parse_actors(actors),
        decode_cpus=decode_cpus,
        actor_cpus=actor_cpus,
        deadline_s=deadline,
        max_reject_rate=max_reject_rate,
        fresh=fresh,
    )
    location = open_location(results)
    if dry_run:
        return plan_only(location, request)
    make_folder(location)
    try:
        return score_archives(location, request, options).as_json()
    except OSError as error:
        raise PneumoniaError(
            f"{error_text(error)} while working on {printable(location.uri)}. Nothing was committed.",
            Remedy.FIX_AND_RUN_AGAIN,
        ) from error


if __name__ == "__main__":
    run_command(command)
