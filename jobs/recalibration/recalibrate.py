"""Recalibrate a bundle on local images: score them with it, fit, and write a new bundle."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.evaluate import output_folder
from jobs.evaluation.labelled_scores import request_scores, score_labelled
from jobs.evaluation.options import EvaluateOptions
from jobs.ray_runtime.session import ray_session
from jobs.scoring.context import ExecutionOptions
from pneumonia_core.archives.manifests import SOURCE_AGE_COLUMN, SOURCE_MODE_COLUMN
from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.bundles.engines import INT8_ENGINE
from pneumonia_core.bundles.parity import PARITY_IMAGES, ParityImages
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import images_of_split, read_labelled
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.evaluation.robustness import balanced_sample
from pneumonia_core.evaluation.table_scores import Row, TableScores, read_scores
from pneumonia_core.evaluation.thresholds import check_both_outcomes
from pneumonia_core.networks.catalog import NETWORKS
from pneumonia_core.scoring.isolation import decode_all

if TYPE_CHECKING:
    from pneumonia_core.training.recalibration.recalibrate import LocalImages, Release

# Scores are kept here while a recalibration goes on, so that it resumes.
WORK_FOLDER: Final = "recalibration"


@dataclass(frozen=True)
class RecalibrateOptions:
    """The options of `pneumonia recalibrate`. `split` None takes all images of the data."""

    bundle: str
    data: str
    models: str
    split: str | None = None
    sensitivity: float | None = None
    prevalence: float | None = None
    address: str | None = None
    num_cpus: int | None = None


def recalibrate_bundle(options: RecalibrateOptions) -> Result:
    """Recalibrate as the command does, in the Ray session that is open or in one of its own."""
    images = _images(options)
    bundle = _open_bundle(options.bundle)
    models = output_folder(options.models)
    rows = _score(images, bundle, models, options)
    local = _local_images(images, rows, bundle)
    # TensorFlow takes seconds to import: a command that is refused does without it.
    from pneumonia_core.bundles.tensorflow_runtime.engine import hide_gpus
    from pneumonia_core.training.recalibration.recalibrate import LocalUse, recalibrate

    hide_gpus()
    released = recalibrate(models, bundle, local, LocalUse(options.sensitivity, options.prevalence))
    return _report(released, bundle, local)


def _images(options: RecalibrateOptions) -> list[LabelledImage]:
    if options.split is not None:
        images = images_of_split(options.data, options.split)
    else:
        images = read_labelled(options.data)
    check_both_outcomes([image.label for image in images])
    return images


def _open_bundle(path: str) -> Bundle:
    """The bundle. Raises InvalidInput where this version cannot build its network again."""
    bundle = open_bundle(path)
    if bundle.spec.network not in NETWORKS:
        raise InvalidInput(
            f"{bundle.path}: its network {bundle.spec.network} is none of {', '.join(NETWORKS)}, and only "
            "these can be recalibrated. Give another bundle."
        )
    return bundle


def _score(
    images: Sequence[LabelledImage], bundle: Bundle, models: Path, options: RecalibrateOptions
) -> list[Row]:
    """The images' rows of a results table, scored in float32: a lower precision would be fitted too."""
    folder = models / WORK_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    asked = EvaluateOptions(str(bundle.path), options.data, str(folder), precision="float32")
    request = request_scores(images, folder, asked, bundle, (SOURCE_MODE_COLUMN, SOURCE_AGE_COLUMN))
    execution = ExecutionOptions(address=options.address, num_cpus=options.num_cpus)
    with ray_session(options.address, options.num_cpus):
        return score_labelled(images, request, bundle, folder, execution)


def _local_images(images: Sequence[LabelledImage], rows: Sequence[Row], bundle: Bundle) -> "LocalImages":
    from pneumonia_core.training.recalibration.recalibrate import LocalImages

    scores = read_scores([image.label for image in images], [image.patient_id for image in images], rows)
    kept = [rows[position] for position in scores.positions]
    domain = [row["domain_score"] for row in kept]
    ages = [row[SOURCE_AGE_COLUMN] for row in kept]
    return LocalImages(
        scored=scores.scored,
        domain_scores=None if None in domain else np.array(domain, np.float32),
        ages_years=[None if age is None else float(age) for age in ages],
        hashes=frozenset(row["image_sha256"] for row in kept),
        sample=_sample(images, scores, bundle.image_size),
    )


def _sample(images: Sequence[LabelledImage], scores: TableScores, size: int) -> ParityImages:
    """Some of the scored images as the network sees them."""
    chosen = balanced_sample(scores.scored.labels, PARITY_IMAGES)
    refs = [images[scores.positions[number]].ref for number in chosen]
    decoded = decode_all(refs, size, threads=len(os.sched_getaffinity(0)), isolated=False)
    read = [number for number, image in enumerate(decoded) if image.pixels is not None]
    if len(read) < len(refs):
        raise PneumoniaError(
            f"{len(refs) - len(read)} of {len(refs)} local images cannot be read again.", Remedy.RUN_AGAIN
        )
    pixels = np.stack([image.pixels for image in decoded if image.pixels is not None])
    return ParityImages(pixels, scores.scored.labels[chosen])


def _report(released: "Release", bundle: Bundle, local: "LocalImages") -> Result:
    figures = released.evaluation["tasks"]["pneumonia_vs_normal"]
    new = released.bundle
    say(
        f"fitted on {len(local.scored.labels):,} images of {local.patients:,} patients. At the threshold "
        f"{new.thresholds.pneumonia:.4f} (was {bundle.thresholds.pneumonia:.4f}), on these same images:"
    )
    for name in ("sensitivity", "specificity"):
        measure = figures["sensitivity"] if name == "sensitivity" else figures["specificity"]
        value, low, high = (measure[end] or 0.0 for end in ("value", "low", "high"))
        say(f"  {name} {value:.3f} ({low:.3f} to {high:.3f})")
    if INT8_ENGINE in bundle.engines:
        say(f"the new bundle has no engine {INT8_ENGINE}: `pneumonia export` makes it")
    say(f"bundle {new.path}")
    return {
        "state": "done",
        "bundle": str(new.path),
        "model_id": new.model_id,
        "from": bundle.model_id,
        "images": len(local.scored.labels),
        "patients": local.patients,
        "thresholds": {"pneumonia": new.thresholds.pneumonia, "bacterial": new.thresholds.bacterial},
        "sensitivity": figures["sensitivity"],
        "specificity": figures["specificity"],
    }
