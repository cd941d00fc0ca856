"""Batch normalisation for training, in one kernel of TensorFlow instead of a dozen."""

from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer for images [B, H, W, C], computed by `FusedBatchNormV3`.

    Keras computes it in float32 from single operations, also for bfloat16 images: on CPUs a fifth of a
    training step goes into moving them through memory. The kernel reads bfloat16 and adds up in float32.
    The moving variance is that of the population (n - 1), as in torch; Keras' own is that of the batch.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        learns = bool(training and self.trainable)
        normalised, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma,
            self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            is_training=learns,
            exponential_avg_factor=1 - self.momentum if learns else 1.0,
        )
        if learns:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return normalised


def with_fused_normalization(model: keras.Model) -> keras.Model:
    """The same network with fused normalisation: layers of the same names and order, weights of its own."""

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = FusedBatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
