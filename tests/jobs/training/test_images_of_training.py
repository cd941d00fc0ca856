"""What is said of labelled images that cannot be decoded; the decoding itself is tested with the training's parts."""

import numpy as np
import pandas as pd
import pytest

from jobs.training.images import HELD_BACK, _tell_left_out
from pneumonia_core.errors import InvalidInput


@pytest.mark.parametrize("reason", ["truncated", HELD_BACK])
def test_class_of_which_nothing_is_left_is_refused_before_a_training_is_spent_on_it(reason):
    """One of forty images is within what may be unreadable, but it was the only viral one."""
    labels = np.repeat([0, 1, 2], [20, 19, 1])
    facts = pd.DataFrame({"label": labels, "reason": [""] * 39 + [reason]})
    with pytest.raises(InvalidInput, match="leaves no viral image for validation"):
        _tell_left_out(facts, "validation")
    facts.loc[38, "label"] = 2
    _tell_left_out(facts, "validation")
