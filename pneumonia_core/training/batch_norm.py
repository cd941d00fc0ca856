"""Batch normalisation for training as one TensorFlow kernel instead of a dozen."""

from collections.abc import Iterable

import keras
import numpy as np
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


class BatchStatistics:
    """The batch-normalisation statistics of the layers of a network that train.

    `measure` replaces them by those of given images, under the weights that the network has ("precise"
    statistics; Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, section 3).
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = [
            layer
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        for layer in self._layers:
            # Each batch then leaves its own statistics. The network itself never trains.
            layer.momentum = 0.0
        self._forward = tf.function(lambda images: model(images, training=True), autograph=False)

    def measure(self, batches: Iterable[tf.Tensor]) -> None:
        """Take the statistics from batches float32 [B, H, W] of about the same size."""
        means, variances = [], []
        for batch in batches if self._layers else ():
            self._forward(batch)
            means.append([layer.moving_mean.numpy() for layer in self._layers])
            variances.append([layer.moving_variance.numpy() for layer in self._layers])
        for index, layer in enumerate(self._layers):
            of_batches = np.stack([mean[index] for mean in means])
            within = np.mean([variance[index] for variance in variances], axis=0)
            layer.moving_mean.assign(of_batches.mean(axis=0))
            layer.moving_variance.assign(within + of_batches.var(axis=0))
