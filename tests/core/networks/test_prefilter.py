"""The filter before the network."""

import numpy as np
from scipy.ndimage import convolve1d

from pneumonia_core.networks.prefilter import smooth


def test_each_axis_is_filtered_by_a_binomial_with_mirrored_edges():
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 12), dtype=np.uint8)
    rows = convolve1d(images.astype(np.float64), [0.25, 0.5, 0.25], axis=1, mode="mirror")
    expected = convolve1d(rows, [0.25, 0.5, 0.25], axis=2, mode="mirror")
    np.testing.assert_allclose(np.asarray(smooth(images)), expected, atol=1e-3)
