"""Scores of held-out images: those of one array, and at most a few parts of images in memory."""

import tracemalloc

import keras
import numpy as np
import pytest
from support.fold_odds import odds_of_one_array
from support.images.counted import counted_parts

from pneumonia_core.networks.domain_guard import domain_scores, fit_guard
from pneumonia_core.training.augment import Augmentation, vary
from pneumonia_core.training.held_out.odds import (
    View,
    held_out_domain_scores,
    held_out_odds,
    outputs,
    varied_odds,
)
from pneumonia_core.training.held_out.validation_set import ValidationSet

SIZE = 64
STRENGTHS = (Augmentation(encoder_share=0.2), Augmentation(blur=0.1))


def network(width):
    """A small network with `width` outputs."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE)),
            layers.Reshape((SIZE, SIZE, 1)),
            layers.Conv2D(4, 5, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dense(width),
        ]
    )


@pytest.fixture(scope="module")
def networks():
    keras.utils.set_random_seed(0)
    return [network(3), network(3)]


def pictures(count):
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def test_scores_are_those_of_one_array_to_the_last_bit(networks):
    images, folds = pictures(200), np.repeat([0, 1], [90, 110])
    parts, _ = counted_parts(images, [7, 50, 1, 64])
    validation = ValidationSet(parts, np.arange(200) % 3, np.arange(200), folds)
    view = View(0.25, mirror=True)
    np.testing.assert_array_equal(
        held_out_odds(networks, validation, parts, view), odds_of_one_array(networks, images, folds)
    )
    odds, labels = varied_odds(networks, validation, view, STRENGTHS, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    expected = [odds_of_one_array(networks, vary(images, strength, rng), folds) for strength in STRENGTHS]
    np.testing.assert_array_equal(odds, np.concatenate(expected))
    np.testing.assert_array_equal(labels, np.tile(np.arange(200) % 3, len(STRENGTHS)))
    probe = network(6)
    features = outputs(probe, images[folds == 0], 0.25)
    guard = fit_guard(features)
    np.testing.assert_array_equal(
        held_out_domain_scores(probe, guard, validation, 0.25), domain_scores(guard, features)
    )


def peak_of_scoring(networks, count):
    """The images that were held at once, and the peak memory in bytes, of all that a release scores."""
    parts, held = counted_parts(pictures(count), [64])
    validation = ValidationSet(parts, np.arange(count) % 3, np.arange(count))
    view, probe = View(0.25, mirror=True), network(6)
    guard = fit_guard(outputs(probe, parts.first(64), 0.25))
    tracemalloc.start()
    held_out_odds(networks[:1], validation, parts, view)
    varied_odds(networks[:1], validation, view, STRENGTHS, np.random.default_rng(1))
    held_out_domain_scores(probe, guard, validation, 0.25)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held.now == 0
    return held.most, peak


def test_four_times_the_images_take_no_more_memory_than_some_numbers_for_each(networks):
    peak_of_scoring(networks, 64)
    (few_held, few_bytes), (many_held, many_bytes) = (peak_of_scoring(networks, n) for n in (128, 512))
    assert few_held == many_held <= 2 * 64
    # What TensorFlow leaves to the garbage collector grows a little, too.
    assert many_bytes - few_bytes < 384 * SIZE**2 / 3
