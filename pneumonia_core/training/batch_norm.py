"""Batch normalisation for training: one kernel instead of a dozen, or with the moments of all replicas."""

from typing import Final

import keras
import tensorflow as tf

# The moments of fewer images are too noisy to normalise with (Wu and He, "Group Normalization", ECCV 2018).
ENOUGH_IMAGES: Final = 16


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


class SharedBatchNormalization(FusedBatchNormalization):
    """The same layer with the moments of the images on all replicas, of which each has equally many.

    While it learns it must be called in a replica of a strategy, by all of them alike: it adds the sums of
    each channel over them, forwards and backwards.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training, mask)
        replica = tf.distribute.get_replica_context()
        # About the moving mean, which is the same everywhere: squares of large values would lose the digits
        # of a small variance.
        shift = tf.stop_gradient(tf.identity(self.moving_mean.value))
        x = tf.cast(inputs, tf.float32) - shift
        sums = tf.stack([tf.reduce_sum(x, (0, 1, 2)), tf.reduce_sum(x * x, (0, 1, 2))])
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]) * replica.num_replicas_in_sync, tf.float32)
        mean, square = tf.unstack(replica.all_reduce(tf.distribute.ReduceOp.SUM, sums) / count)
        variance = tf.maximum(square - mean * mean, 0.0)
        self.moving_mean.assign_add((1 - self.momentum) * mean)
        unbiased = variance * count / (count - 1)
        self.moving_variance.assign(self.momentum * self.moving_variance + (1 - self.momentum) * unbiased)
        normalised = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(normalised, inputs.dtype)


def needs_shared_moments(images: int, replicas: int) -> bool:
    """Whether replicas of so many images each are to normalise with the moments of all of them."""
    return replicas > 1 and images < ENOUGH_IMAGES


def with_fused_normalization(model: keras.Model, shared: bool = False) -> keras.Model:
    """A copy of the network with fused normalisation, or with shared moments: the same layer names and order,
    new weights."""
    normalization = SharedBatchNormalization if shared else FusedBatchNormalization

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = normalization if type(layer) is keras.layers.BatchNormalization else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)


def statistics(model: keras.Model) -> list[keras.Variable]:
    """The moving means and variances that training changes, each of shape [C]."""
    return [
        variable
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
