"""AdamW as the recipe wants it."""

import keras
import numpy as np

from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.training.optimizer import scheduled_optimizer
from pneumonia_core.training.recipe import Recipe


def test_kernels_decay_by_the_rate_and_nothing_else_does():
    recipe = Recipe("resnet18", image_size=32, epochs=1, batch_size=32, learning_rate=0.1, weight_decay=0.5)
    classifier = build_classifier("resnet18", 32)
    optimizer = scheduled_optimizer(recipe, 2, classifier)
    before = [variable.numpy() for variable in classifier.trainable_variables]
    for _ in range(2):
        # Without a gradient Adam itself moves nothing. The first step of the warm-up has the rate 0.
        optimizer.apply([np.zeros(variable.shape, np.float32) for variable in before])
    for variable, first in zip(classifier.trainable_variables, before, strict=True):
        kept = 1 - 0.1 * 0.5 if variable.name == "kernel" else 1
        np.testing.assert_allclose(variable.numpy(), kept * first, rtol=1e-5)


def test_frozen_layers_are_none_of_its_business():
    classifier = build_classifier("resnet18", 32)
    classifier.trainable = False
    classifier.get_layer("logits").trainable = True
    variables = scheduled_optimizer(Recipe("resnet18"), 2, classifier).variables
    assert sum(keras.ops.size(variable) for variable in variables) < 4000
