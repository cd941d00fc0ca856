"""The low-pass filter that scoring applies before the network."""

import keras
import numpy as np
from keras import ops

from pneumonia_core.imaging.contract import SMOOTHING


def smooth(images: np.ndarray | keras.KerasTensor, smoothing: float = SMOOTHING) -> keras.KerasTensor:
    """Filtered images float32 [B, H, W] of images [B, H, W] of any dtype.

    The filter is [smoothing, 1 - 2 smoothing, smoothing] along each axis; the edges are mirrored. With 0 the
    images stay as they are.
    """
    return smooth_about(images, 0.0, smoothing)


def smooth_about(
    images: np.ndarray | keras.KerasTensor, middle: float, smoothing: float = SMOOTHING
) -> keras.KerasTensor:
    """`smooth` minus `middle`: near zero bfloat16 still resolves fractions."""
    x = ops.cast(images, "float32") - middle
    if smoothing == 0:
        return x
    x = ops.pad(ops.expand_dims(x, -1), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return ops.squeeze(ops.conv(x, _kernel(smoothing), padding="valid", data_format="channels_last"), -1)


def _kernel(smoothing: float) -> np.ndarray:
    """Float32 [height, width, 1, 1].

    One convolution with weights that bfloat16 holds exactly: a bfloat16 engine then rounds once, at its
    result. Separate operations would round each time.
    """
    taps = np.array([smoothing, 1 - 2 * smoothing, smoothing], np.float32)
    return np.outer(taps, taps).reshape(3, 3, 1, 1)
