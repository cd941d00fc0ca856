"""A factor on the loss, without which float16 would round small gradients to nothing."""

from collections.abc import Sequence
from typing import Any, Final

import keras
import tensorflow as tf

from pneumonia_core.networks.classifier import stage_of
from pneumonia_core.training.recipe import Recipe, stage_rates

FIRST_FACTOR: Final = 2.0**15
STEPS_TO_GROW: Final = 2000


class LossScale:
    """The factor of a training in float16 (Micikevicius et al., "Mixed Precision Training", ICLR 2018).

    Halved after a step with gradients beyond float16, doubled after 2,000 steps without. Such a step gives the optimizer
    zeros: its schedule and its moments go on, so that steps are counted alike on every worker. Keras has an optimizer
    that does this, but only inside a replica, where workers that do not agree would wait for one another.
    """

    def __init__(self) -> None:
        self.factor = tf.Variable(FIRST_FACTOR, trainable=False, name="loss_scale")
        self._clean_steps = tf.Variable(0, trainable=False, name="steps_without_overflow")

    @property
    def variables(self) -> list[Any]:
        """What training goes on from."""
        return [self.factor, self._clean_steps]

    def unscaled(self, gradients: list[Any], finite: Any) -> list[Any]:
        """The gradients of the loss itself, zeros where `finite` is false."""
        return [tf.where(finite, gradient / self.factor, 0.0) for gradient in gradients]

    def adjust(self, finite: Any) -> None:
        """Take account of a step, once for all devices."""
        clean_steps = tf.where(finite, self._clean_steps + 1, 0)
        grows = clean_steps >= STEPS_TO_GROW
        self.factor.assign(self.factor * tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5))
        self._clean_steps.assign(tf.where(grows, 0, clean_steps))


def all_finite(gradients: list[Any]) -> Any:
    """Whether no gradient is infinite or no number, a scalar tensor."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])


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
