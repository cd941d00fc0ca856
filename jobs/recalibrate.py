"""`pneumonia recalibrate`: a new bundle with calibration, thresholds and guard of local images."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType, address_option, num_cpus_option


@job_command("recalibrate")
@click.argument("bundle", type=LocationType())
@click.option(
    "--data",
    required=True,
    type=LocationType(),
    help="Labelled local images: a folder, tar or zip, or a table with uri, label, patient_id, split.",
)
@click.option("--models", required=True, type=LocationType(folder=True), help="Folder for the new bundle.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train", "val"]),
    help="Part of the data to fit on.  [default: all of it]",
)
@click.option(
    "--sensitivity",
    type=click.FloatRange(0, 1, min_open=True),
    help="Least sensitivity for pneumonia: the largest threshold that has it on these images.  "
    "[default: the threshold by Youden's J]",
)
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, True, True),
    help="Share of pneumonia that the new probabilities are for.  [default: that of these images]",
)
@address_option
@num_cpus_option
def command(**options: Any) -> Result:  # noqa: ANN401 - click's options
    """Fit BUNDLE to labelled images of one's own, and write a new bundle with the same network.

    Calibration, thresholds, findings sets and the domain guard's threshold are fitted on these images. The
    figures of the new bundle are of the same images, so they are slightly too good: measure it with
    `pneumonia evaluate` on others. BUNDLE itself is not changed.
    """
    # Ray takes a second to import; --help needs none of it.
    from jobs.recalibration.recalibrate import RecalibrateOptions, recalibrate_bundle

    return recalibrate_bundle(RecalibrateOptions(**options))


if __name__ == "__main__":
    run_command(command)
