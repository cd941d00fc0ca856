"""A few steps of a training on one worker, timed; nothing of them is kept."""

import resource
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jobs.training.placement import TrainingPlacement
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.networks.catalog import STAGES
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.training.recipe import Recipe, first_trained_stage

if TYPE_CHECKING:
    # TensorFlow takes seconds to import, and only the worker needs it.
    from pneumonia_core.training.learner import Learner, TrainingBatch

TIMED_STEPS: Final = 3
SAMPLE_IMAGES: Final = 32


@dataclass(frozen=True)
class Trial:
    """What a worker measured. The rates are of the whole worker, and of one decoding task.

    `first_step_s` includes compiling. `memory_bytes` is the most that the worker's process held, `gpu_bytes`
    the most on its first GPU; None without GPUs.
    """

    precision: str
    first_stage: str
    first_step_s: float
    step_s: float
    scored_per_s: float
    decoded_per_s: float
    unreadable: int
    memory_bytes: int
    gpu_bytes: int | None


def try_steps(
    recipe: Recipe, placement: TrainingPlacement, nodes: int, steps_per_epoch: int, refs: Sequence[ImageRef]
) -> Trial:
    """Time a few steps on images at `refs`, in a task with the resources of a worker.

    `nodes` is how many the workers are spread over. Raises PneumoniaError where the steps fail.
    """
    # Ray takes a second to import, and a command that is refused does without it.
    import ray

    # The process ends with its task, and with it what TensorFlow holds.
    remote: Any = ray.remote(max_calls=1, num_cpus=placement.cpus, num_gpus=placement.gpus)(_try_on_worker)
    workers_here = -(-placement.count // nodes)
    try:
        trial: Trial = ray.get(remote.remote(recipe, placement, workers_here, steps_per_epoch, list(refs)))
    except ray.exceptions.RayTaskError as error:
        reason = str(error.cause).strip().splitlines() or [""]
        raise PneumoniaError(
            f"the first steps fail on a worker: {type(error.cause).__name__}: {reason[0][:200]}"
        ) from error
    return trial


def _try_on_worker(
    recipe: Recipe,
    placement: TrainingPlacement,
    workers_here: int,
    steps_per_epoch: int,
    refs: Sequence[ImageRef],
) -> Trial:
    # These import TensorFlow, which the driver does without.
    import tensorflow as tf

    from jobs.training.worker.devices import set_up_devices, threads_of_worker
    from jobs.training.worker.precision import choose_precision
    from jobs.training.worker.steps import take_steps

    set_up_devices(threads_of_worker(workers_here), placement.gpus)
    images, decoded_per_s = _decoded(refs, recipe.image_size, max(1, round(placement.decode_cpus)))
    # Which stages a file of weights fills is only known to who reads it; nearly all fill the trunk.
    loaded = () if recipe.weights == "none" else STAGES[:-1]
    first_stage = recipe.train_from or first_trained_stage(loaded)
    precision, _ = choose_precision(recipe, first_stage, steps_per_epoch)
    share = replace(recipe, batch_size=recipe.batch_size // placement.count, precision=precision)
    learner = _learner(share, first_stage, placement.gpus, steps_per_epoch)
    with closing(_batches(images, share, max(1, placement.gpus))) as batches:
        began = time.perf_counter()
        done = take_steps(learner, batches, 1 + TIMED_STEPS)
        first_step_s = time.perf_counter() - began - done.seconds
    return Trial(
        precision=precision,
        first_stage=first_stage,
        first_step_s=first_step_s,
        step_s=done.seconds / TIMED_STEPS,
        scored_per_s=_scored_per_s(learner, share),
        decoded_per_s=decoded_per_s,
        unreadable=len(refs) - len(images),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        gpu_bytes=tf.config.experimental.get_memory_info("GPU:0")["peak"] if placement.gpus else None,
    )


def _decoded(refs: Sequence[ImageRef], size: int, threads: int) -> tuple[np.ndarray, float]:
    """The readable images uint8 [N, H, W], and how many a second one task decodes. Raises PneumoniaError
    where none can be read."""
    began = time.perf_counter()
    decoded = decode_all(refs, size, threads, isolated=False)
    seconds = time.perf_counter() - began
    pixels = [image.pixels for image in decoded if image.pixels is not None]
    if not pixels:
        raise PneumoniaError(f"none of {len(refs)} images that were tried can be read on this worker")
    return np.stack(pixels), len(refs) / seconds


def _learner(recipe: Recipe, first_stage: str, gpus: int, steps_per_epoch: int) -> "Learner":
    # See above.
    import tensorflow as tf

    from jobs.training.worker.devices import shares_moments, xla_error
    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.training.learner import Learner
    from pneumonia_core.training.loss import ClassWeights

    weights = build_classifier(recipe.network, recipe.image_size).get_weights()
    strategy = tf.distribute.MirroredStrategy() if gpus else None
    return Learner(
        recipe,
        weights,
        first_stage,
        ClassWeights(1, 1, 1, 1),
        steps_per_epoch,
        strategy,
        shared_moments=shares_moments(recipe.batch_size, max(1, gpus), gpus),
        compiled=gpus > 0 and xla_error() is None,
    )


def _batches(images: np.ndarray, recipe: Recipe, threads: int) -> Generator["TrainingBatch", None, None]:
    """Batches of the images, prepared as in a training."""
    # See above.
    from jobs.training.worker.batches import prefetched
    from pneumonia_core.training.augment import augmentation_of, draw, reencode_some
    from pneumonia_core.training.learner import TrainingBatch

    rng, strength, size = np.random.default_rng(0), augmentation_of(recipe), recipe.batch_size

    def endless() -> Iterator[TrainingBatch]:
        while True:
            some = images[rng.integers(0, len(images), size)]
            chosen = reencode_some(some, rng, strength, threads)
            labels = rng.integers(0, 3, size).astype(np.int32)
            yield TrainingBatch(chosen, labels, draw(rng, size, recipe.image_size, strength))

    return prefetched(endless())


def _scored_per_s(learner: "Learner", recipe: Recipe) -> float:
    images = np.zeros((recipe.batch_size, recipe.image_size, recipe.image_size), np.uint8)
    learner.averaged.logits(images)  # compiles
    began = time.perf_counter()
    learner.averaged.logits(images)
    return recipe.batch_size / (time.perf_counter() - began)
