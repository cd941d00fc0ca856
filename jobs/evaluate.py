"""`pneumonia evaluate`: measure a bundle on a labelled set."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import (
    LocationType,
    address_option,
    engine_option,
    num_cpus_option,
    precision_option,
)
from jobs.evaluation.options import MOST_EXPLAINED, EvaluateOptions


@job_command("evaluate")
@click.option(
    "--model",
    required=True,
    multiple=True,
    type=LocationType(),
    help="Bundle to measure. Several are compared pair by pair on the same images.",
)
@click.option(
    "--data",
    required=True,
    type=LocationType(),
    help="Labelled set: a Kermany folder, tar or zip, or a table with uri, label, patient_id, split.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train", "val"]),
    default="test",
    show_default=True,
    help="`validation` are the patients that training holds back.",
)
@click.option(
    "--output",
    required=True,
    type=LocationType(),
    help="Folder for evaluation.json, evaluation.html and the scores.",
)
@click.option(
    "--by",
    metavar="NAME,…",
    help="Figures by group: columns of a labels table, such as sex,age,site; of DICOM files sex and age.",
)
@engine_option
@precision_option
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, True, True),
    help="Share of pneumonia to correct the scores to.",
)
@click.option(
    "--bootstrap", type=click.IntRange(min=10), default=1000, show_default=True, help="Resamples of patients."
)
@click.option(
    "--robustness",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Images to score again re-encoded, blurred, brightened, rotated and reshaped; 0 for none.",
)
@click.option(
    "--explanations",
    type=click.IntRange(0, MOST_EXPLAINED),
    default=MOST_EXPLAINED,
    show_default=True,
    help="Worst mistakes to show on the page, with maps of what spoke for them; 0 for none.",
)
@address_option
@num_cpus_option
def command(**options: Any) -> Result:  # noqa: ANN401 - click's options
    """Score the labelled images of DATA and measure the scores: JSON and one HTML page.

    With several models each has its own folder under the output, beside comparison.json and comparison.html.
    """
    # Here, because `pneumonia evaluate --help` needs neither matplotlib nor scikit-learn.
    from jobs.evaluation.compare import compare_bundles
    from jobs.evaluation.evaluate import evaluate_bundle

    models = options.pop("model")
    if len(models) > 1:
        return compare_bundles(models, EvaluateOptions(model=models[0], **options))
    return evaluate_bundle(EvaluateOptions(model=models[0], **options))


if __name__ == "__main__":
    run_command(command)
