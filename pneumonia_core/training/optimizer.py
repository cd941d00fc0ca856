"""AdamW with a learning rate per stage, and the loss scale that float16 needs."""

from collections.abc import Sequence
from typing import Final

import keras
import tensorflow as tf
from keras import ops

from pneumonia_core.networks.classifier import stage_of
from pneumonia_core.training.recipe import Recipe, stage_rates

FIRST_FACTOR: Final = 2.0**15
STEPS_TO_GROW: Final = 2000


class LossScale:
    """A factor on the loss that keeps small gradients from rounding to zero in float16.

    Micikevicius et al., "Mixed Precision Training", ICLR 2018. It is halved after a step with gradients
    beyond float16, and doubled after 2,000 steps without. After an overflow the optimizer gets zeros: its
    schedule and moments go on, so steps are counted alike on every worker. Keras has such an optimizer, but
    only inside a replica, where workers that disagree would wait for each other.
    """

    def __init__(self, first_factor: float = FIRST_FACTOR) -> None:
        self.factor = tf.Variable(first_factor, trainable=False, name="loss_scale")
        self._clean_steps = tf.Variable(0, trainable=False, name="steps_without_overflow")

    @property
    def variables(self) -> list[tf.Variable]:
        """The state that a checkpoint holds."""
        return [self.factor, self._clean_steps]

    def unscaled(self, gradients: list[tf.Tensor], finite: tf.Tensor) -> list[tf.Tensor]:
        """The gradients of the unscaled loss; zeros where `finite` is false."""
        return [tf.where(finite, gradient / self.factor, 0.0) for gradient in gradients]

    def adjust(self, finite: tf.Tensor) -> None:
        """Adapt the factor to a step, once for all devices."""
        clean_steps = tf.where(finite, self._clean_steps + 1, 0)
        grows = clean_steps >= STEPS_TO_GROW
        self.factor.assign(self.factor * tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5))
        self._clean_steps.assign(tf.where(grows, 0, clean_steps))


def all_finite(gradients: list[tf.Tensor]) -> tf.Tensor:
    """Whether all gradients are finite, a scalar tensor."""
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])


class StagedAdamW(keras.optimizers.Adam):
    """AdamW with a factor on the learning rate of each variable, in the order of the variables.

    Kernels decay by `decay` times the learning rate of their stage in each step (Loshchilov and Hutter, ICLR
    2019). In Keras's AdamW, kernels of slow stages would decay as fast as those of new ones.
    """

    def __init__(
        self,
        learning_rate: keras.optimizers.schedules.LearningRateSchedule | float,
        decay: float,
        factors: Sequence[float],
    ) -> None:
        super().__init__(learning_rate)
        self._decay = decay
        self._factors = tuple(factors)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        rate = learning_rate * self._factors[self._get_variable_index(variable)]
        is_kernel = len(variable.shape) > 1
        if self._decay and is_kernel:
            self.assign_sub(variable, variable * ops.cast(self._decay * rate, variable.dtype))
        super().update_step(gradient, variable, rate)


def staged_optimizer(
    recipe: Recipe, steps_per_epoch: int, classifier: keras.Model, fresh_from: str | None
) -> StagedAdamW:
    """The built optimizer of the classifier's trainable variables.

    `fresh_from` is the first stage without loaded weights, see `stage_rates`.
    """
    warmup = max(1, round(recipe.warmup_epochs * steps_per_epoch))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.peak_learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
    )
    optimizer = StagedAdamW(schedule, recipe.weight_decay, _factors(classifier, fresh_from))
    optimizer.build(classifier.trainable_variables)
    return optimizer


def _factors(classifier: keras.Model, fresh_from: str | None) -> list[float]:
    """The factor on each trainable variable's learning rate."""
    rates = stage_rates(fresh_from)
    return [
        rates[stage_of(classifier.name, layer.name)]
        for layer in classifier.layers
        for _ in layer.trainable_variables
    ]
