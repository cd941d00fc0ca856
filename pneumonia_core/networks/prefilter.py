"""The filter before the network when it scores."""

from typing import Any, Final

import numpy as np
from keras import ops

from pneumonia_core.imaging.contract import SMOOTHING

_TAPS: Final = np.array([SMOOTHING, 1 - 2 * SMOOTHING, SMOOTHING], np.float32)
# Height, width, channels in and out. One convolution with weights that bfloat16 holds exactly: an engine that computes
# in bfloat16 rounds the outcome alone; of single operations it would round each.
_KERNEL: Final = np.outer(_TAPS, _TAPS).reshape(3, 3, 1, 1)


def smooth(images: Any) -> Any:
    """Images float32 [B, H, W] of images [B, H, W] of any type, filtered along each axis by
    [SMOOTHING, 1 - 2 SMOOTHING, SMOOTHING], their edges mirrored."""
    return smooth_about(images, 0.0)


def smooth_about(images: Any, middle: float) -> Any:
    """The same less `middle`: of numbers near zero bfloat16 keeps fractions."""
    x = ops.expand_dims(ops.cast(images, "float32") - middle, -1)
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    return ops.squeeze(ops.conv(x, _KERNEL, padding="valid", data_format="channels_last"), -1)
