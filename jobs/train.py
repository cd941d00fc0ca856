"""`pneumonia train`: fine-tune a ResNet on labelled X-rays with Ray Train, and write a bundle."""

from typing import Any

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType, address_option
from pneumonia_core.bundles.engines import LEAST_HELD_BACK
from pneumonia_core.findings import DEFAULT_COVERAGE
from pneumonia_core.networks.catalog import NETWORKS, STAGES
from pneumonia_core.training.recipe import (
    AUGMENT,
    CHECKPOINT_MINUTES,
    DEFAULT_RECIPE,
    FINE_TUNING_RATE,
    FROM_SCRATCH_RATE,
)


@job_command("train")
@click.option(
    "--data",
    required=True,
    type=LocationType(),
    help="Kermany folder, tar or zip, or a table: uri, label, patient_id, split.",
)
@click.option("--models", required=True, type=LocationType(folder=True), help="Folder for the bundle.")
@click.option(
    "--network",
    default=DEFAULT_RECIPE.network,
    show_default=True,
    metavar="NAME",
    type=click.Choice(NETWORKS),
    help=f"One of {', '.join(NETWORKS)}.",
)
@click.option(
    "--weights",
    default=None,
    type=LocationType("imagenet", "none"),
    help="imagenet, none or a file.  [default: imagenet where Keras has it]",
)
@click.option("--train-from", default=None, type=click.Choice(STAGES), help="First stage that trains.")
@click.option(
    "--workers",
    default=None,
    type=click.IntRange(1),
    help="[default: one for the GPUs of a node, without GPUs one per node]",
)
@click.option("--gpus", default=0, type=click.IntRange(0), help="Number of GPUs over all workers.")
@click.option("--epochs", default=DEFAULT_RECIPE.epochs, show_default=True, type=click.IntRange(1))
@click.option(
    "--batch-size",
    default=None,
    type=click.IntRange(1),
    help="Images of a step, over all workers and GPUs.  "
    f"[default: {DEFAULT_RECIPE.batch_size}, with several GPUs {DEFAULT_RECIPE.batch_size} for each]",
)
@click.option("--image-size", default=DEFAULT_RECIPE.image_size, show_default=True, type=int)
@click.option(
    "--learning-rate",
    default=None,
    type=click.FloatRange(0),
    help="At the peak, for a batch of 32; it grows with the square root of the batch.  "
    f"[default: {FINE_TUNING_RATE:g}, {FROM_SCRATCH_RATE:g} with --weights none]",
)
@click.option(
    "--weight-decay",
    default=DEFAULT_RECIPE.weight_decay,
    show_default=True,
    type=click.FloatRange(0),
    help="AdamW's, per unit of learning rate: over 4 epochs of 5,000 images, 0.1 takes about 1.5 % off a "
    "weight, 1 about 14 %.",
)
@click.option(
    "--label-smoothing",
    default=DEFAULT_RECIPE.label_smoothing,
    show_default=True,
    type=click.FloatRange(0, 1, max_open=True),
    help="Of pneumonia or normal.",
)
@click.option(
    "--augment",
    default=DEFAULT_RECIPE.augment,
    show_default=True,
    type=click.Choice(AUGMENT),
    help="How strongly training images vary in position, exposure and encoding.",
)
@click.option(
    "--flip/--no-flip",
    default=DEFAULT_RECIPE.flip,
    show_default=True,
    help="Mirror half of the training images.",
)
@click.option("--dropout", default=DEFAULT_RECIPE.dropout, show_default=True, type=click.FloatRange(0, 0.95))
@click.option(
    "--precision",
    default=DEFAULT_RECIPE.precision,
    show_default=True,
    type=click.Choice(["auto", "float32", "mixed_bfloat16", "mixed_float16"]),
    help="auto: on CPUs bfloat16 where it is faster than float32, timed on a few images first; on GPUs by "
    "their generation.",
)
@click.option(
    "--patience",
    default=DEFAULT_RECIPE.patience,
    show_default=True,
    type=click.IntRange(0),
    help="Stop after this many epochs without a lower log-loss on validation, and keep the best epoch; a "
    "training that reaches its last epoch keeps that. 0: never stop early.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option(
    "--storage",
    default=None,
    type=LocationType(),
    help="Folder for checkpoints, seen by all nodes.  [default: MODELS/training]",
)
@click.option(
    "--name", default=None, help="Name of the training in the storage.  [default: from its options]"
)
@click.option(
    "--ages",
    default=None,
    metavar="MIN,MAX",
    help="Ages of the training patients in completed years: a DICOM image of another age is out of domain. "
    " [default: 1,5 for Kermany's data set, else none]",
)
@click.option(
    "--coverage",
    default=DEFAULT_COVERAGE,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the images of each class whose findings_set holds it.",
)
@click.option(
    "--mirror",
    is_flag=True,
    help="The bundle scores the mean of an image and its mirror image, at twice the computation.",
)
@click.option(
    "--folds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="From 2 on: train so many networks, each without one part of the patients. The bundle scores their "
    "mean, and is calibrated on images that a network was not trained on. Training and scoring take so many "
    "times as long.",
)
@click.option(
    "--int8/--no-int8",
    default=None,
    help="Whether the bundle has the engine openvino-int8 too, up to four times as fast. It takes minutes.  "
    f"[default: where the extra int8 is installed, and at least {LEAST_HELD_BACK} images are held back]",
)
@click.option("--resume", is_flag=True, help="Resume the training of this name, if it has begun.")
@click.option(
    "--checkpoint-minutes",
    default=CHECKPOINT_MINUTES,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="The most that an interrupted training repeats; it also resumes from the end of each epoch.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be trained, on which workers, with how much memory and for how long, and stop.",
)
@address_option
def command(dry_run: bool, **options: Any) -> Result:  # noqa: ANN401 - click's options
    """Fine-tune a ResNet on labelled chest X-rays and write a bundle that `pneumonia score` uses.

    Images of whole patients are set aside for validation; calibration and thresholds are fitted on them. A
    head is fitted to the loaded trunk first. Then the deeper stages train. The bundle holds the moving
    average of the weights after the last epoch, or after the best one where --patience ran out.
    """
    # Ray takes a second to import; --help needs none of it.
    from jobs.training.train import make_request, train

    request = make_request(**options)
    if dry_run:
        # A training does without it.
        from jobs.training.dry_run.dry_run import dry_run as say_what_it_would_do

        return say_what_it_would_do(request)
    return train(request)


if __name__ == "__main__":
    run_command(command)
