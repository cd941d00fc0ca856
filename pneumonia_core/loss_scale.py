"""A factor on the loss, without which float16 would round small gradients to nothing."""

from typing import Any, Final

import tensorflow as tf

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
