"""`pneumonia inspect`: contents of a data set or archive, broken files, and what would mislead a training."""

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType, address_option, allow_prefix_option, num_cpus_option
from pneumonia_core.errors import InvalidInput


@job_command("inspect")
@click.argument("archive", nargs=-1, required=True, type=LocationType(), metavar="DATA_OR_ARCHIVE...")
@click.option(
    "--output", type=LocationType(), help="Write the whole inspection, every image named, to this .json file."
)
@allow_prefix_option
@address_option
@num_cpus_option
def command(
    archive: tuple[str, ...],
    output: str | None,
    allow_prefix: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
) -> Result:
    """Look at every image of DATA_OR_ARCHIVE...: any archive of `score`, any data of `train`.

    Counts by split and class, sizes, encodings, broken files, equal files and look-alikes, patients in
    several splits, and how well the encoding alone would tell pneumonia from normal. No model is needed.
    """
    if output is not None and not output.endswith(".json"):
        raise InvalidInput(f"--output {output}: end the name in .json.")
    # Here, because `pneumonia inspect --help` needs neither pyarrow nor a decoder.
    from jobs.inspection.inspect import open_data, report, survey

    archives, rules = open_data(archive, allow_prefix)
    surveyed, skipped = survey(archives, rules, address, num_cpus)
    return report(archives, surveyed, skipped, output)


if __name__ == "__main__":
    run_command(command)
