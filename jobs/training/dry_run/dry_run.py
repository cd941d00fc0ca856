"""`pneumonia train --dry-run`: counts, plan, memory and hours. It trains nothing and writes nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.ray_runtime.session import ray_session
from jobs.training.dry_run.estimate import Memory, Work, estimate_memory, estimate_seconds
from jobs.training.dry_run.trial import SAMPLE_IMAGES, TIMED_STEPS, Trial, try_steps
from jobs.training.placement import TrainingPlacement
from jobs.training.train import TrainingRequest, place_workers, split_images
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.findings import LABELS
from pneumonia_core.training.recipe import Recipe, steps_per_epoch

_GB: Final = 1e9
_HOW: Final = (
    f"{TIMED_STEPS} steps, a batch scored and {SAMPLE_IMAGES} images decoded on one worker; without the "
    "exchange of gradients between workers, and reading as fast as these images were read"
)


def dry_run(request: TrainingRequest) -> Result:
    """Say what the training would do, and time a few steps on a worker.

    Raises InvalidInput where the data, the recipe or the cluster does not fit, as the training would.
    """
    parts = split_images(request)
    training, validation = parts[0]
    counts = {"training": class_counts(training), "validation": class_counts(validation)}
    _say_counts(counts, request.folds)
    recipe = request.recipe
    steps = steps_per_epoch(recipe, len(training))
    work = Work(len(training), len(validation), steps, request.folds, request.mirror)
    with ray_session(request.address):
        nodes, placement = place_workers(request)
        sample = np.linspace(0, len(training) - 1, min(SAMPLE_IMAGES, len(training))).astype(int)
        refs = [training[index].ref for index in sample]
        say("timing a few steps on a worker")
        trial = try_steps(recipe, placement, len(nodes), steps, refs)
        seconds = estimate_seconds(recipe, work, placement, trial, sum(node.cpus for node in nodes))
    memory = estimate_memory(recipe, work, trial)
    plan = _plan(recipe, placement, work, trial)
    total = sum(seconds.values())
    _say_plan(recipe, placement, work, trial)
    _say_needs(memory, total, trial, len(refs))
    return {
        "state": "dry run",
        "images": counts,
        "plan": plan,
        "memory_bytes": {name: value for name, value in asdict(memory).items() if value is not None},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "seconds_per_step": round(trial.step_s, 4),
        "hours": round(total / 3600, 3),
        "estimated_from": _HOW,
    }


def class_counts(images: Sequence[LabelledImage]) -> dict[str, int]:
    """Images by label; those of a label that there are none of are left out."""
    counts = np.bincount([image.label for image in images], minlength=len(LABELS))
    return {name: int(count) for name, count in zip(LABELS, counts, strict=True) if count}


def _plan(recipe: Recipe, placement: TrainingPlacement, work: Work, trial: Trial) -> dict[str, Any]:
    return {
        "workers": placement.count,
        "cpus_per_worker": placement.cpus,
        "gpus_per_worker": placement.gpus,
        "batch_size": recipe.batch_size,
        "batch_per_replica": recipe.batch_size // placement.replicas,
        "learning_rate": round(recipe.peak_learning_rate, 7),
        "steps_per_epoch": work.steps_per_epoch,
        "epochs": recipe.epochs,
        "folds": work.folds,
        "network": recipe.network,
        "first_stage": trial.first_stage,
        "precision": trial.precision,
    }


def _say_counts(counts: dict[str, dict[str, int]], folds: int) -> None:
    for name, each in counts.items():
        classes = ", ".join(f"{count:,} {label}" for label, count in each.items())
        first = f", for the first of {folds} networks" if folds > 1 else ""
        say(f"{name}: {sum(each.values()):,} images ({classes}){first}")


def _say_plan(recipe: Recipe, placement: TrainingPlacement, work: Work, trial: Trial) -> None:
    workers = f"workers: {placement.count}, CPUs of each: {placement.cpus:g}"
    gpus = f", GPUs of each: {placement.gpus}" if placement.gpus else ""
    each = recipe.batch_size // placement.replicas
    say(
        f"{workers}{gpus}; {recipe.epochs} epochs of {work.steps_per_epoch:,} steps of "
        f"{recipe.batch_size} images, {each} for each {'GPU' if placement.gpus else 'worker'}, "
        f"at a rate of {recipe.peak_learning_rate:.3g}"
    )
    say(
        f"{recipe.network} would train from {trial.first_stage} on in {trial.precision.replace('_', ' ')}"
        + (f", {work.folds} times" if work.folds > 1 else "")
    )


def _say_needs(memory: Memory, total_s: float, trial: Trial, tried: int) -> None:
    gpu = f", {memory.gpu / _GB:.1f} GB of its GPU" if memory.gpu is not None else ""
    say(
        f"memory: about {memory.object_store / _GB:.2f} GB of Ray's object store for decoded images, "
        f"{memory.worker / _GB:.1f} GB for each worker{gpu}, {memory.driver / _GB:.1f} GB for this process"
    )
    if trial.unreadable:
        say(f"{trial.unreadable} of {tried} images that were tried cannot be read")
    say(f"about {_duration(total_s)}, from {_HOW}: {trial.step_s:.2f} s a step")


def _duration(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours"
