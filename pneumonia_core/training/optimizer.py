"""AdamW with the recipe's schedule, and the loss scale that float16 needs."""

from typing import Final

import keras
import tensorflow as tf

from pneumonia_core.training.recipe import Recipe

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


def scheduled_optimizer(
    recipe: Recipe, steps_per_epoch: int, classifier: keras.Model
) -> keras.optimizers.AdamW:
    """The built optimizer of the classifier's trainable variables; only kernels decay.

    All stages learn at one rate, those with loaded weights too.
    """
    warmup = max(1, round(recipe.warmup_epochs * steps_per_epoch))
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=recipe.peak_learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, recipe.epochs * steps_per_epoch - warmup),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(classifier.trainable_variables)
    return optimizer
