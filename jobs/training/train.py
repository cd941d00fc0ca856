"""`pneumonia train`: fine-tune a ResNet on labelled X-rays with Ray Train, and write a bundle."""

import hashlib
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.ray_runtime.resources import GROWTH_S, Node, wait_for
from jobs.training.folder import TrainingRun, open_training
from jobs.training.images import LabelledImages, decode_labelled
from jobs.training.placement import plan_workers
from jobs.training.tensorboard import EventLog
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import read_labelled, split_training
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.findings import CLASSES
from pneumonia_core.networks.catalog import KERAS_LAYOUT, check_network, check_source
from pneumonia_core.storage.location import open_location
from pneumonia_core.training.recipe import (
    DEFAULT_RECIPE,
    FINE_TUNING_RATE,
    FROM_SCRATCH_RATE,
    Recipe,
    check_first_stage,
    class_weights,
)

if TYPE_CHECKING:
    from jobs.training.driver import Trained


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
    from jobs.ray_runtime.session import names_a_cluster, ray_session
    from pneumonia_core.datasets.kermany import KNOWN_AGES_YEARS, known_data_set

    ages_years = parse_ages(ages)
    started = time.perf_counter()
    recipe = _recipe(recipe_options)
    # The workers have another working directory.
    data = data if "://" in data else str(Path(data).absolute())
    folder = Path(models).absolute()
    training, validation = split_training(read_labelled(data))
    run = _open_run(recipe, data, folder, storage, name, resume, ages_years)
    if run.result is not None:
        return run.result
    data_set = data_set or known_data_set(image.uri for image in training)
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


def _recipe(options: dict[str, Any]) -> Recipe:
    network = options.get("network", DEFAULT_RECIPE.network)
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
    place = open_location(storage) if storage else open_location(str(models)).child("training")
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
) -> tuple["Trained", LabelledImages, LabelledImages, np.ndarray]:
    """The trained network, the training and the validation set, and the validation images."""
    from jobs.training.driver import run_training

    nodes = wait_for(Node(cpus=1, gpus=gpus), time.monotonic() + (GROWTH_S if on_a_cluster else 0))
    plan = plan_workers(workers, gpus, recipe.batch_size, nodes)
    shuffled = [training[i] for i in np.random.default_rng(recipe.seed).permutation(len(training))]
    journals = run.folder.child("decoding")
    held_back = decode_labelled(validation, recipe.image_size, plan.decode_cpus, "validation", journals)
    decoded = decode_labelled(
        shuffled, recipe.image_size, plan.decode_cpus, "training", journals, held_back.contents
    )
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
    decoded: LabelledImages,
    held_back: LabelledImages,
    images: np.ndarray,
    data_set: str,
    ages_years: tuple[float, float] | None,
    models: Path,
    run: TrainingRun,
    started: float,
) -> Result:
    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.networks.domain_guard import GUARD_IMAGES
    from pneumonia_core.training.release import Provenance, ValidationSet, release

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
    classifier = build_classifier(recipe.network, recipe.image_size)
    classifier.set_weights(trained.weights)
    released = release(
        models,
        classifier,
        decoded.images(GUARD_IMAGES),
        ValidationSet(images, held_back.labels, held_back.patients),
        Provenance(run.data_digest(), data_set, Path(recipe.weights).name, facts, ages_years),
    )
    bundle, evaluation = released.bundle, released.evaluation
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


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    tasks = evaluation["tasks"]
    return {
        "images": evaluation["images"],
        **{f"auroc_{name}": task["auroc"]["value"] for name, task in tasks.items()},
        **{f"accuracy_{name}": task["accuracy"]["value"] for name, task in tasks.items()},
        "accuracy_three_class": evaluation["three_class"]["accuracy"]["value"],
        "out_of_domain": evaluation["domain"]["flagged_share"],
    }


def parse_ages(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        youngest, oldest = (float(part) for part in text.split(","))
    except ValueError:
        youngest, oldest = 0.0, -1.0
    if not 0 <= youngest <= oldest < math.inf:
        raise InvalidInput(f"--ages {text!r}: write the least and the greatest age in years: 1,5.")
    return youngest, oldest
