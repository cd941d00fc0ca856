"""The time and the memory that a training will need, by arithmetic from a trial."""

from dataclasses import dataclass
from typing import Final

from jobs.training.dry_run.trial import Trial
from jobs.training.placement import TrainingPlacement
from pneumonia_core.networks.domain_guard import GUARD_IMAGES
from pneumonia_core.training.recipe import Recipe

# How often a release scores each validation image: as it is, in three variations each for calibration and for
# thresholds, and for the guard.
_SCORED_BY_RELEASE: Final = 8
# Bytes of a pixel of an image that the guard is fitted on, in the driver: the image, and two for a variation.
_BYTES_A_PIXEL: Final = 3


@dataclass(frozen=True)
class Work:
    """How much there is to do: images of each part, steps, and networks that are trained one by one."""

    training: int
    validation: int
    steps_per_epoch: int
    folds: int
    mirror: bool


@dataclass(frozen=True)
class Memory:
    """Bytes: decoded images in Ray's object store, each worker, its first GPU, and the driver."""

    object_store: int
    worker: int
    gpu: int | None
    driver: int


def estimate_seconds(
    recipe: Recipe, work: Work, placement: TrainingPlacement, trial: Trial, cpus: float
) -> dict[str, float]:
    """Seconds by part: decoding, compiling, the head, training, validation and release.

    The cluster has so many CPUs. The exchange of gradients between workers is not in it.
    """
    tasks = max(1, int(cpus // placement.decode_cpus))
    scored_per_s = trial.scored_per_s * placement.count
    head = 0.0 if recipe.weights == "none" else work.training / scored_per_s
    views = _SCORED_BY_RELEASE * (2 if work.mirror else 1)
    return {
        "decoding": work.folds * (work.training + work.validation) / (trial.decoded_per_s * tasks),
        "compiling": work.folds * trial.first_step_s,
        "head": work.folds * head,
        "training": work.folds * recipe.epochs * work.steps_per_epoch * trial.step_s,
        "validation": work.folds * recipe.epochs * work.validation / scored_per_s,
        "release": work.folds * views * work.validation / trial.scored_per_s,
    }


def estimate_memory(recipe: Recipe, work: Work, trial: Trial) -> Memory:
    """The memory of each part. The images of all folds are in the object store until the release.

    What it does not hold is spilled to disk; workers and driver load a block at a time.
    """
    pixels = recipe.image_size**2
    return Memory(
        object_store=work.folds * (work.training + work.validation) * pixels,
        worker=trial.memory_bytes,
        gpu=trial.gpu_bytes,
        driver=trial.memory_bytes + _BYTES_A_PIXEL * min(work.training, GUARD_IMAGES) * pixels,
    )
