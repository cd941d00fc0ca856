"""The optimizer of a training: AdamW whose rate warms up, falls along a cosine, and differs by stage."""

from collections.abc import Sequence
from typing import Any

import keras

from pneumonia_core.networks import stage_of
from pneumonia_core.recipe import Recipe, stage_rates


class StagedAdamW(keras.optimizers.AdamW):
    """AdamW with a factor on the learning rate of each variable, in the order of the variables."""

    def __init__(self, learning_rate: Any, weight_decay: float, factors: Sequence[float]) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay)
        self._factors = tuple(factors)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)


def staged_optimizer(
    recipe: Recipe, steps_per_epoch: int, classifier: keras.Model, fresh_from: str | None
) -> StagedAdamW:
    """The optimizer of the classifier's trainable variables, built. `fresh_from` is the first stage whose weights were not
    loaded, see `stage_rates`."""
    warmup = max(1, round(recipe.warmup_epochs * steps_per_epoch))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.peak_learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
    )
    optimizer = StagedAdamW(schedule, recipe.weight_decay, _factors(classifier, fresh_from))
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(classifier.trainable_variables)
    return optimizer


def _factors(classifier: keras.Model, fresh_from: str | None) -> list[float]:
    """The factor of each trainable variable's learning rate."""
    rates = stage_rates(fresh_from)
    return [
        rates[stage_of(classifier.name, layer.name)]
        for layer in classifier.layers
        for _ in layer.trainable_variables
    ]
