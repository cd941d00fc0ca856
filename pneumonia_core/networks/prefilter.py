"""The low-pass filter that scoring applies before the network."""

from typing import Final

import keras
import numpy as np
from keras import ops

from pneumonia_core.imaging.contract import SMOOTHING

_TAPS: Final = np.array([SMOOTHING, 1 - 2 * SMOOTHING, SMOOTHING], np.float32)
# Height, width, channels in and out. One convolution with weights that bfloat16 holds exactly: a bfloat16
# engine then rounds once, at its result. Separate operations would round each time.
_KERNEL: Final = np.outer(_TAPS, _TAPS).reshape(3, 3, 1, 1)


def smooth(images: np.ndarray | keras.KerasTensor) -> keras.KerasTensor:
    """Filtered images float32 [B, H, W] of images [B, H, W] of any dtype.

    The filter is [SMOOTHING, 1 - 2 SMOOTHING, SMOOTHING] along each axis; the edges are mirrored.
    """
    return smooth_about(images, 0.0)


def smooth_about(images: np.ndarray | keras.KerasTensor, middle: float) -> keras.KerasTensor:
    """`smooth` minus `middle`: near zero bfloat16 still resolves fractions."""
    x = ops.expand_dims(ops.cast(images, "float32") - middle, -1)
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return ops.squeeze(ops.conv(x, _KERNEL, padding="valid", data_format="channels_last"), -1)
