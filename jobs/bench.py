"""`pneumonia bench`: the decode and engine ceilings of a cluster, a real run, and what limits it."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import (
    LocationType,
    address_option,
    allow_prefix_option,
    engine_option,
    num_cpus_option,
    precision_option,
)


@job_command("bench")
@click.argument("archive", nargs=-1, type=LocationType())
@click.option(
    "--model", required=True, type=LocationType(), help="Bundle to score with; PATH@sha256:HEX pins it."
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    help="Images to score, at most. Default: 256 for each CPU of the cluster.",
)
@click.option(
    "--workdir",
    type=LocationType(),
    help="Folder or bucket that every node reaches, for the temporary table and synthetic X-rays. Default: a "
    "temporary folder, where the cluster is this machine alone.",
)
@allow_prefix_option
@engine_option
@precision_option
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Images that the engine computes at once.")
@click.option("--shape", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True)
@click.option("--actors", help="Number of scoring actors, or least,most. Default: as many as fit.")
@click.option("--actor-cpus", type=click.FloatRange(min=0.1), help="CPUs of a scoring actor.")
@click.option(
    "--actor-gpus", type=click.FloatRange(0, 1, min_open=True), help="Share of a GPU of a scoring actor."
)
@click.option("--decode-cpus", type=click.FloatRange(min=0.1), help="CPUs of a decoding task (shape gpu).")
@address_option
@num_cpus_option
def command(**options: Any) -> Result:  # noqa: ANN401 - click's options
    """Measure what the cluster can do with images of ARCHIVE..., or with synthetic X-rays without one.

    Scores them as `score` does, into a temporary table. Then every node decodes for some seconds, and
    computes for some seconds, on all its cores: the ceilings. The table says how close the run came to both
    together, what limits it, what the actors did in their seconds, and how long a million images take.

    Nothing is left behind. The whole archive is listed, as `score --limit` does.
    """
    # The room imports Ray and the engines, which `--help` does without.
    from jobs.benchmark.benchmark import BenchOptions, bench

    return bench(BenchOptions(**options))


if __name__ == "__main__":
    run_command(command)
