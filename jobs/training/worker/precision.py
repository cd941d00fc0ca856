"""The precision that a training multiplies in: what its GPUs do fastest, or what was fastest on its CPU."""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import tensorflow as tf

from pneumonia_core.networks.classifier import build_classifier, train_from
from pneumonia_core.system.environment import cpu_has_bfloat16, gpu_training_precision
from pneumonia_core.training.batch_norm import with_fused_normalization
from pneumonia_core.training.recipe import Recipe

FLOAT32: Final = "float32"
BFLOAT16: Final = "mixed_bfloat16"
# bfloat16 must be worth the digits that it loses, and more than the chance in timing.
WORTH: Final = 1.15
# Timing costs as much as some dozens of images of 224 px. A training of fewer than these gains nothing by it.
_ENOUGH_PIXELS: Final = 4000 * 224 * 224
_TIMED_IMAGES: Final = 8
_TIMED_STEPS: Final = 2


def choose_precision(
    recipe: Recipe, first_stage: str, steps_per_epoch: int
) -> tuple[str, dict[str, float] | None]:
    """The recipe's precision; for `auto` that of this worker's GPUs, or the faster one on its CPU.

    Where both were timed, the second value is `seconds_of_a_step`.
    """
    if recipe.precision != "auto":
        return recipe.precision, None
    on_gpus = gpu_precision()
    if on_gpus is not None:
        return on_gpus, None
    if not is_worth_timing(recipe, steps_per_epoch):
        return FLOAT32, None
    seconds = seconds_of_a_step(recipe, first_stage)
    return faster(seconds), seconds


def is_worth_timing(recipe: Recipe, steps_per_epoch: int) -> bool:
    """Whether the CPUs have bfloat16 at all, and the training is long enough to time it first."""
    images = recipe.epochs * steps_per_epoch * recipe.batch_size
    return cpu_has_bfloat16() and images * recipe.image_size**2 >= _ENOUGH_PIXELS


def gpu_precision() -> str | None:
    """What this worker's GPUs multiply fastest; None where it has no GPU."""
    gpus = tf.config.get_visible_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return (
        gpu_training_precision([each.get("compute_capability", (0, 0)) for each in details]) if gpus else None
    )


def faster(seconds: Mapping[str, float]) -> str:
    """The precision to take by the seconds of a step in each."""
    return BFLOAT16 if seconds[BFLOAT16] * WORTH < seconds[FLOAT32] else FLOAT32


def seconds_of_a_step(recipe: Recipe, first_stage: str) -> dict[str, float]:
    """Seconds of the gradients of a few images on this CPU, in float32 and in bfloat16.

    A flag of the processor says nothing: of two with AVX512-BF16, one was twice as fast in bfloat16 as in
    float32, the other at 0.6 of the speed.
    """
    return {precision: _seconds(recipe, first_stage, precision) for precision in (FLOAT32, BFLOAT16)}


def _seconds(recipe: Recipe, first_stage: str, precision: str) -> float:
    plain = build_classifier(recipe.network, recipe.image_size, recipe.dropout, precision)
    classifier = with_fused_normalization(plain)
    train_from(classifier, first_stage)
    size = recipe.image_size
    images = np.random.default_rng(0).uniform(0, 255, (_TIMED_IMAGES, size, size)).astype(np.float32)
    # The first step also chooses kernels.
    times = [_seconds_of_gradients(classifier, images) for _ in range(1 + _TIMED_STEPS)]
    return min(times[1:])


def _seconds_of_gradients(classifier: tf.Module, images: np.ndarray) -> float:
    started = time.perf_counter()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.cast(classifier(images, training=True), tf.float32))
    gradients = tape.gradient(loss, classifier.trainable_variables)
    # Waits for the last of them.
    np.asarray(gradients[0])
    return time.perf_counter() - started
