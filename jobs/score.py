"""Score archives of chest X-rays into the results table: list, plan, score, check, commit."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.dates import UTC
from jobs.console.imports import importing
from jobs.console.options import (
    DurationType,
    GateType,
    LocationType,
    TimezoneType,
    address_option,
    allow_prefix_option,
    engine_option,
    num_cpus_option,
    precision_option,
)
from jobs.scoring.options import CHUNK_SIZE, ScoreOptions
from pneumonia_core.gates import DEFAULT_GATES, MIN_IMAGES, MIN_VOLUME_CHANGE

_DEFAULTS = ", ".join(f"{name}={gate.action}:{gate.limit:g}" for name, gate in DEFAULT_GATES.items())


class _ArchiveArgument(click.Argument):
    """Required, but for the acceptance of a held run."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, object], args: list[str]
    ) -> tuple[object, list[str]]:
        self.required = not _accepts(ctx, opts)
        return super().handle_parse_result(ctx, opts, args)


class _ModelOption(click.Option):
    """Required, but for the acceptance of a held run."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, object], args: list[str]
    ) -> tuple[object, list[str]]:
        self.required = not _accepts(ctx, opts)
        return super().handle_parse_result(ctx, opts, args)


def _accepts(context: click.Context, options: Mapping[str, object]) -> bool:
    return bool(options.get("accept") or context.lookup_default("accept"))


@job_command("score")
@click.argument("archive", nargs=-1, required=True, type=LocationType(), cls=_ArchiveArgument)
@click.option(
    "--model",
    required=True,
    type=LocationType(),
    cls=_ModelOption,
    help="Bundle to score with; PATH@sha256:HEX pins it.",
)
@click.option(
    "--results",
    required=True,
    type=LocationType(),
    help="Folder of the results: the table is in its scores/.",
)
@engine_option
@precision_option
@click.option("--date", help="Logical date of the run, 2026-01-31. Default: today.")
@click.option(
    "--timezone",
    type=TimezoneType(),
    default=UTC,
    show_default=True,
    help="Time zone of today and of {date} in --config, such as Europe/Berlin.",
)
@click.option("--retry-rejected", is_flag=True, help="Try every rejected image again.")
@click.option(
    "--trust-chest",
    is_flag=True,
    help="Take DICOM for radiographs of the chest, whatever modality and body part say. Lateral views are "
    "rejected all the same. With --retry-rejected: also what was rejected before.",
)
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
@click.option(
    "--fresh", is_flag=True, help="Abandon an unfinished run, and held ones of this command, and start over."
)
@click.option(
    "--max-reject-rate",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="More rejects: exit 3.",
)
@click.option(
    "--gate",
    type=GateType(),
    multiple=True,
    metavar="NAME=off|warn|hold:VALUE",
    help="What warns before the commit, or holds it back (exit 4). May be given again. rejected and "
    "read-rejected: shares of the images handled by this run; out-of-domain: of those scored; gone: images "
    "that went since the run before, of those that were there; volume: a factor between the images listed "
    "and those of the run before; drift: how far the scores are from those of earlier runs, a population "
    f"stability index. Default: {_DEFAULTS}. Fewer than {MIN_IMAGES} images raise no alarm, nor "
    f"does a volume that changed by fewer than {MIN_VOLUME_CHANGE}.",
)
@click.option(
    "--accept",
    metavar="RUN",
    help="Commit this held run as it is, without rows of images that have got newer ones, and stop. Needs "
    "--results alone.",
)
@click.option(
    "--chunk-size",
    type=click.IntRange(1, 4096),
    default=CHUNK_SIZE,
    show_default=True,
    help="Images per chunk.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    help="Images that the engine computes at once. Default: 32 on CPUs, 128 on GPUs. A run that is resumed "
    "keeps its own.",
)
@click.option(
    "--cache",
    type=LocationType(),
    help="Folder or bucket for decoded squares. With --rescore all, a new model reads them instead of the "
    "images. It holds the images in small: protect it like the archive. It may be deleted at any time.",
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
def command(results: str, dry_run: bool, accept: str | None, **options: Any) -> Result:  # noqa: ANN401 - click's options
    """Score every chest X-ray of ARCHIVE... that the results do not have yet.

    An archive is a folder or bucket with images, tars and zips in it, one such file, or a manifest: a Parquet
    or CSV table with a column `uri`.

    One row for each image: the probabilities of normal, bacterial and viral pneumonia, or why there are
    none. The same command resumes a run that died, and scores only what is new or changed.

    A run that a gate holds back is staged, with exit code 4. Other runs do not wait for it; --accept commits
    it.
    """
    if accept is not None:
        if dry_run or options["fresh"]:
            raise click.UsageError("--accept commits a run as it is: leave out --dry-run and --fresh.")
        # Imports the table's libraries, which `--help` does without.
        from jobs.scoring.ending.acceptance import accept as accept_run

        return accept_run(results, accept, options["max_reject_rate"])
    # Imports numpy, which `--help` does without.
    from pneumonia_core.bundles.bundle import open_bundle

    with ThreadPoolExecutor(1) as beside:
        # Hashing a bundle's files takes as long as importing the libraries, and another core.
        bundle = beside.submit(open_bundle, options["model"])
        with importing():
            from jobs.scoring.run import score
    return score(results, ScoreOptions(**options), bundle.result(), dry_run)


if __name__ == "__main__":
    run_command(command)
