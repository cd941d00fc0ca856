"""Batch normalisation for training as one TensorFlow kernel instead of a dozen."""

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer for images [B, H, W, C], computed by `FusedBatchNormV3`.

    Keras computes it in float32 from single operations, for bfloat16 images too. On CPUs this moves so much
    memory that it takes a fifth of a training step. The kernel reads bfloat16 and accumulates in float32. Its
    moving variance is the unbiased estimate (n - 1), as in torch; that of Keras is the variance of the batch.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
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
    """A copy of the network with fused normalisation: the same layer names and order, new weights."""

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = FusedBatchNormalization if type(layer) is keras.layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
