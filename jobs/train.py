"""`pneumonia train`: fine-tune a ResNet on labelled X-rays with Ray Train, and write a bundle."""

import hashlib
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from jobs.config import Result, job_command, run_command
from jobs.decoded import Decoded, decode_labelled
from jobs.progress import say
from jobs.start import check_first_stage
from jobs.tensorboard import EventLog
from jobs.training_run import TrainingRun, open_training
from jobs.workers import plan_workers, wait_for_nodes
from pneumonia_core.catalog import KERAS_LAYOUT, NETWORKS, STAGES, check_network, check_source
from pneumonia_core.errors import InvalidInput
from pneumonia_core.labels import CLASSES, LabelledImage, read_labelled, split_training
from pneumonia_core.places import open_place
from pneumonia_core.recipe import FINE_TUNING_RATE, FROM_SCRATCH_RATE, Recipe, class_weights

if TYPE_CHECKING:
    from jobs.trainer import Trained

DEFAULTS = Recipe()


@job_command("train")
@click.option("--data", required=True, help="Kermany folder, or a table: uri, label, patient_id, split.")
@click.option("--models", required=True, type=click.Path(file_okay=False), help="Folder for the bundle.")
@click.option(
    "--network",
    default=DEFAULTS.network,
    show_default=True,
    metavar="NAME",
    type=click.Choice(NETWORKS),
    help=f"One of {', '.join(NETWORKS)}.",
)
@click.option(
    "--weights", default=None, help="imagenet, none or a file.  [default: imagenet where Keras has it]"
)
@click.option("--train-from", default=None, type=click.Choice(STAGES), help="First stage that trains.")
@click.option(
    "--workers",
    default=None,
    type=click.IntRange(1),
    help="[default: one per GPU, without GPUs one per node]",
)
@click.option("--gpus", default=0, type=click.IntRange(0), help="Train on so many GPUs, over all workers.")
@click.option("--epochs", default=DEFAULTS.epochs, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=DEFAULTS.batch_size, show_default=True, type=click.IntRange(1))
@click.option("--image-size", default=DEFAULTS.image_size, show_default=True, type=int)
@click.option(
    "--learning-rate",
    default=None,
    type=click.FloatRange(0),
    help=f"At the peak, for a batch of 32.  [default: {FINE_TUNING_RATE:g}, {FROM_SCRATCH_RATE:g} with --weights none]",
)
@click.option("--dropout", default=DEFAULTS.dropout, show_default=True, type=click.FloatRange(0, 0.95))
@click.option(
    "--precision",
    default=DEFAULTS.precision,
    show_default=True,
    type=click.Choice(["auto", "float32", "mixed_bfloat16", "mixed_float16"]),
)
@click.option(
    "--patience",
    default=DEFAULTS.patience,
    show_default=True,
    type=click.IntRange(0),
    help="End after so many epochs without a better one, and keep the best; a training that reaches its last epoch "
    "keeps that. 0: never end early.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1))
@click.option(
    "--storage", default=None, help="Folder for checkpoints, seen by all nodes.  [default: MODELS/training]"
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
@click.option("--resume", is_flag=True, help="Go on with the training of this name, if it has begun.")
@click.option("--address", default=None, help="Ray cluster.  [default: RAY_ADDRESS, else this machine]")
def command(**options: Any) -> Result:
    """Fine-tune a ResNet on labelled chest X-rays and write a bundle that `pneumonia score` uses.

    Images of whole patients are set aside for validation; calibration and thresholds are chosen on them.
    A head is fitted to the loaded trunk first, then the deeper stages train, the earlier the slower. The network that
    is written holds the moving average of the weights after the last epoch, or after the best where --patience ran out.
    """
    return train(**options)


def train(
    data: str,
    models: str,
    workers: int | None = None,
    gpus: int = 0,
    storage: str | None = None,
    name: str | None = None,
    ages: str | None = None,
    resume: bool = False,
    address: str | None = None,
    data_set: str | None = None,
    **recipe_options: Any,
) -> Result:
    """Train as the command does, in the Ray session that is open or in one of its own.

    `data_set` is what the model card says of the data, see pages.card; None goes by the file names.
    `ages` None are those of the data set, where it is known.
    `recipe_options` are fields of Recipe; `weights` None is imagenet where Keras has such weights.
    """
    from jobs.session import names_a_cluster, ray_session
    from pneumonia_core.domain import KNOWN_AGES_YEARS
    from pneumonia_core.pages.card import known_data_set

    ages_years = _parse_ages(ages)
    started = time.perf_counter()
    recipe = _recipe(recipe_options)
    # The workers have another working directory.
    data, folder = str(Path(data).absolute()), Path(models).absolute()
    training, validation = split_training(read_labelled(data))
    run = _open_run(recipe, data, folder, storage, name, resume, ages_years)
    if run.result is not None:
        return run.result
    data_set = data_set or known_data_set(image.path for image in training)
    ages_years = ages_years or KNOWN_AGES_YEARS.get(data_set)
    with ray_session(address):
        trained, decoded, held_back, images = _train_on_cluster(
            recipe, training, validation, workers, gpus, run, folder, names_a_cluster(address)
        )
        result = _write_bundle(
            trained, decoded, held_back, images, data_set, ages_years, folder, run, started
        )
    run.finish(result)
    return result


def _parse_ages(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        youngest, oldest = (float(part) for part in text.split(","))
    except ValueError:
        youngest, oldest = 0.0, -1.0
    if not 0 <= youngest <= oldest < math.inf:
        raise InvalidInput(f"--ages {text!r}: write the least and the greatest age in years: 1,5.")
    return youngest, oldest


def _recipe(options: dict[str, Any]) -> Recipe:
    network = options.get("network", DEFAULTS.network)
    if options.get("weights") is None:
        options = {**options, "weights": "imagenet" if network in KERAS_LAYOUT else "none"}
    if options.get("learning_rate") is None:
        rate = FROM_SCRATCH_RATE if options["weights"] == "none" else FINE_TUNING_RATE
        options = {**options, "learning_rate": rate}
    if options["weights"] not in ("none", "imagenet"):
        options = {**options, "weights": str(Path(options["weights"]).absolute())}
    recipe = Recipe(**options)
    check_network(recipe.network, recipe.image_size)
    check_source(recipe.network, recipe.weights)
    if recipe.weights == "none":
        check_first_stage(recipe, ())
    return recipe


def _open_run(
    recipe: Recipe,
    data: str,
    models: Path,
    storage: str | None,
    name: str | None,
    resume: bool,
    ages_years: tuple[float, float] | None,
) -> TrainingRun:
    settings = {**asdict(recipe), "data": data, **({"ages_years": list(ages_years)} if ages_years else {})}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    place = open_place(storage) if storage else open_place(str(models)).child("training")
    return open_training(place, name or f"{recipe.network}-{digest[:8]}", settings, resume)


def _train_on_cluster(
    recipe: Recipe,
    training: list[LabelledImage],
    validation: list[LabelledImage],
    workers: int | None,
    gpus: int,
    run: TrainingRun,
    models: Path,
    on_a_cluster: bool,
) -> tuple["Trained", Decoded, Decoded, np.ndarray]:
    """The trained network, the training and the validation set, and the validation images."""
    from jobs.trainer import run_training

    plan = plan_workers(workers, gpus, recipe.batch_size, wait_for_nodes(gpus, on_a_cluster))
    shuffled = [training[i] for i in np.random.default_rng(recipe.seed).permutation(len(training))]
    held_back = decode_labelled(validation, recipe.image_size, plan.decode_cpus, "validation")
    decoded = decode_labelled(shuffled, recipe.image_size, plan.decode_cpus, "training", held_back.contents)
    run.pin_data(hashlib.sha256(f"{decoded.digest} {held_back.digest}".encode()).hexdigest())
    say(
        f"{len(decoded.labels):,} training and {len(held_back.labels):,} validation images of "
        f"{recipe.image_size} px, {plan.count} worker{'s' if plan.count > 1 else ''}"
        + (f" with {plan.gpus} GPU{'s' if plan.gpus > 1 else ''} each" if plan.gpus else "")
    )
    images = held_back.images()
    with EventLog(models / "tensorboard" / run.name, anew=not run.has_checkpoint) as log:
        trained = run_training(recipe, decoded, images, held_back.labels, plan, run, log)
    return trained, decoded, held_back, images


def _write_bundle(
    trained: "Trained",
    decoded: Decoded,
    held_back: Decoded,
    images: np.ndarray,
    data_set: str,
    ages_years: tuple[float, float] | None,
    models: Path,
    run: TrainingRun,
    started: float,
) -> Result:
    from pneumonia_core.domain import GUARD_IMAGES
    from pneumonia_core.release import HeldBack, Origin, release

    say("writing the bundle")
    recipe, history = trained.recipe, trained.history
    facts = {
        "run": run.name,
        "recipe": {**asdict(recipe), "weights": Path(recipe.weights).name},
        "first_trained_stage": trained.first_stage,
        "images": {"training": len(decoded.labels), "validation": len(held_back.labels)},
        "class_weights": dict(zip(CLASSES, class_weights(decoded.labels), strict=True)),
        "history": history,
    }
    bundle, evaluation = release(
        models,
        recipe.network,
        recipe.image_size,
        trained.weights,
        decoded.images(GUARD_IMAGES),
        HeldBack(images, held_back.labels, held_back.patients),
        Origin(run.data_digest(), data_set, Path(recipe.weights).name, facts, ages_years),
    )
    say(f"bundle {bundle.path}")
    return {
        "state": "done",
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "run": run.name,
        "validation": _figures(evaluation),
        "epochs": len(history),
        "images_per_s": round(float(np.mean([epoch["images_per_s"] for epoch in history])), 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


def _figures(evaluation: dict[str, Any]) -> dict[str, Any]:
    tasks = evaluation["tasks"]
    return {
        "images": evaluation["images"],
        **{f"auroc_{name}": task["auroc"]["value"] for name, task in tasks.items()},
        **{f"accuracy_{name}": task["accuracy"]["value"] for name, task in tasks.items()},
        "accuracy_three_class": evaluation["three_class"]["accuracy"]["value"],
        "out_of_domain": evaluation["domain"]["flagged_share"],
    }


if __name__ == "__main__":
    run_command(command)
