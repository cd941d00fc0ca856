"""The choices of a recipe: which stages train, and at which rates."""

import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.training.recipe import (
    Recipe,
    check_first_stage,
    first_trained_stage,
)


@pytest.mark.parametrize(
    ("loaded", "stage"),
    [
        ((), "conv1"),
        (("conv1",), "layer1"),
        (("conv1", "layer1", "layer2", "layer3"), "layer3"),
        (("conv1", "layer1", "layer2", "layer3", "layer4", "head"), "layer3"),
    ],
)
def test_training_begins_at_layer3_or_where_the_loaded_weights_end(loaded, stage):
    assert first_trained_stage(loaded) == stage


TRUNK = ("conv1", "layer1", "layer2", "layer3")


@pytest.mark.parametrize(
    ("train_from", "loaded", "fresh"),
    [
        ("head", TRUNK, "layer4"),
        ("layer1", (), "conv1"),
        ("head", ("layer1", "layer2", "layer3", "layer4"), "conv1"),
        ("layer4", TRUNK, None),
        ("layer2", TRUNK, None),
        ("head", (*TRUNK, "layer4"), None),
        ("head", (*TRUNK, "layer4", "head"), None),
        (None, (), None),
    ],
)
def test_a_stage_is_not_frozen_without_loaded_weights(train_from, loaded, fresh):
    recipe = Recipe(weights="trunk.npz", train_from=train_from)
    if fresh is None:
        check_first_stage(recipe, loaded)
        return
    with pytest.raises(InvalidInput, match=f"the stage {fresh} has no loaded weights.* Train from .*{fresh}"):
        check_first_stage(recipe, loaded)
