"""A little smoothing of images, in plain Keras arithmetic: one that training draws, and one that scoring always does."""

from typing import Any

from keras import ops

from pneumonia_core.images import SMOOTHING


def smooth(images: Any, weight: Any = SMOOTHING) -> Any:
    """Images float32 [B, H, W] of images [B, H, W] of any type, filtered along each axis by
    [weight, 1 - 2 weight, weight], their edges mirrored. `weight` is one number, or [B, 1, 1]."""
    x = ops.cast(images, "float32")
    rows = ops.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    x = x * (1 - 2 * weight) + weight * (rows[:, :-2] + rows[:, 2:])
    columns = ops.pad(x, ((0, 0), (0, 0), (1, 1)), mode="reflect")
    return x * (1 - 2 * weight) + weight * (columns[:, :, :-2] + columns[:, :, 2:])
