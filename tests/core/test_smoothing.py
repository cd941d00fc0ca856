"""The filter before the network."""

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from pneumonia_core.smoothing import smooth


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.25])
def test_each_axis_is_filtered_with_mirrored_edges(weight):
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 12), dtype=np.uint8)
    taps = [weight, 1 - 2 * weight, weight]
    rows = convolve1d(images.astype(np.float64), taps, axis=1, mode="mirror")
    expected = convolve1d(rows, taps, axis=2, mode="mirror")
    np.testing.assert_allclose(np.asarray(smooth(images, weight)), expected, atol=1e-3)


def test_every_image_may_have_a_weight_of_its_own():
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    both = np.asarray(smooth(images, np.array([0.0, 0.2], np.float32).reshape(2, 1, 1)))
    np.testing.assert_array_equal(both[0], images[0])
    np.testing.assert_allclose(both[1], np.asarray(smooth(images, 0.2))[1], atol=1e-3)
