"""The precision of a training: timed where the processor has bfloat16 and the training is long."""

import pytest

from jobs.training.worker.precision import (
    BFLOAT16,
    FLOAT32,
    faster,
    is_worth_timing,
    seconds_of_a_step,
)
from pneumonia_core.system.environment import cpu_has_bfloat16
from pneumonia_core.training.recipe import Recipe


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "taken"),
    [(1.0, 0.5, BFLOAT16), (1.0, 0.95, FLOAT32), (1.0, 1.0, FLOAT32), (0.6, 1.0, FLOAT32)],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(float32_s, bfloat16_s, taken):
    assert faster({FLOAT32: float32_s, BFLOAT16: bfloat16_s}) == taken


def test_a_short_training_is_not_timed_and_the_default_recipe_is_where_there_is_bfloat16():
    assert not is_worth_timing(Recipe(image_size=32, epochs=2), 100)
    assert not is_worth_timing(Recipe(image_size=224, epochs=1), 10)
    assert is_worth_timing(Recipe(), 146) == cpu_has_bfloat16()


def test_both_precisions_are_timed():
    seconds = seconds_of_a_step(Recipe("resnet18", weights="none", image_size=32), "layer3")
    assert set(seconds) == {FLOAT32, BFLOAT16}
    assert min(seconds.values()) > 0
