"""AdamW with a rate for each stage."""

import keras
import numpy as np

from pneumonia_core.training.optimizer import StagedAdamW


def test_kernels_decay_by_the_rate_of_their_stage_and_nothing_else_does():
    slow, fast = (keras.Variable(np.full((2, 3), 4.0)) for _ in range(2))
    bias = keras.Variable(np.full(3, 4.0))
    variables = [slow, fast, bias]
    optimizer = StagedAdamW(0.1, decay=0.5, factors=(0.5, 1.0, 1.0))
    optimizer.build(variables)
    # Without a gradient Adam itself moves nothing.
    optimizer.apply([np.zeros(variable.shape, np.float32) for variable in variables])
    np.testing.assert_allclose(slow.numpy(), 4 * (1 - 0.5 * 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_allclose(fast.numpy(), 4 * (1 - 0.5 * 0.1), rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), 4)
