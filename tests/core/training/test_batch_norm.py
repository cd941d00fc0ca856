import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from pneumonia_core.networks.classifier import dtype_policy
from pneumonia_core.training.batch_norm import (
    FusedBatchNormalization,
    SharedBatchNormalization,
    needs_shared_moments,
    with_fused_normalization,
)


def network(precision):
    with dtype_policy(precision):
        images = keras.Input((6, 6, 2))
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")(images)
        return keras.Model(images, layers.ReLU(name="relu")(x), name="small")


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_fused_normalization_computes_and_learns_what_that_of_keras_does(precision, tolerance):
    plain = network(precision)
    fused = with_fused_normalization(plain)
    assert type(fused.get_layer("norm")) is FusedBatchNormalization
    fused.set_weights(plain.get_weights())
    images = np.random.default_rng(0).normal(3, 2, (16, 6, 6, 2)).astype(np.float32)
    for training in (True, True, False):
        expected, given = (np.asarray(m(images, training=training), np.float32) for m in (plain, fused))
        # Their moving variances differ by n / (n - 1), n being 576 here, which inference shows.
        np.testing.assert_allclose(given, expected, atol=tolerance * 2, rtol=0 if training else 2e-3)
    for before, after in zip(plain.get_weights(), fused.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, rtol=max(tolerance, 2e-3))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.05)])
def test_shared_moments_of_one_replica_are_its_own(precision, tolerance):
    """Those of several: test_learner.py."""
    fused = with_fused_normalization(network(precision))
    shared = with_fused_normalization(network(precision), shared=True)
    assert type(shared.get_layer("norm")) is SharedBatchNormalization
    images = tf.constant(np.random.default_rng(0).normal(3, 2, (16, 6, 6, 2)), tf.float32)
    for training in (True, True, False):
        outputs, gradients = [], []
        for model in (fused, shared):
            with tf.GradientTape() as tape:
                tape.watch(images)
                output = model(images, training=training)
                loss = tf.reduce_sum(tf.cast(output, tf.float32) ** 3)
            outputs.append(np.asarray(output, np.float32))
            gradients.append(tape.gradient(loss, [images, *model.trainable_variables]))
        np.testing.assert_allclose(outputs[1], outputs[0], atol=tolerance, rtol=tolerance)
        for expected, given in zip(*gradients, strict=True):
            np.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance * 10)
    for before, after in zip(fused.get_weights(), shared.get_weights(), strict=True):
        np.testing.assert_allclose(after, before, rtol=max(tolerance / 10, 1e-4))


def test_moments_are_shared_by_replicas_of_fewer_than_16_images():
    cases = [(8, 1), (8, 2), (15, 2), (16, 2), (32, 8)]
    assert [needs_shared_moments(*case) for case in cases] == [False, True, True, False, False]


def test_frozen_normalization_keeps_its_statistics_in_training():
    fused = with_fused_normalization(network("float32"))
    fused.get_layer("norm").trainable = False
    before = fused.get_weights()
    fused(np.full((4, 6, 6, 2), 9.0, np.float32), training=True)
    for was, now in zip(before, fused.get_weights(), strict=True):
        np.testing.assert_array_equal(now, was)
