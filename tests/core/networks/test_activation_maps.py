"""Class activation maps against the gradient that they do without, and on networks that have none."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from pneumonia_core.calibration import Calibration
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL
from pneumonia_core.networks.activation_maps import activation_maps
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.prefilter import smooth_about
from pneumonia_core.networks.scoring_model import MIDDLE_GREY, scoring_model
from pneumonia_core.phantoms.radiograph import phantom

FOUND = [NORMAL, BACTERIAL, BACTERIAL, VIRAL]
OF_KIND = [False, False, True, True]


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    keras.utils.set_random_seed(3)
    return build_classifier("resnet18", 64, dropout=0.3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.stack([phantom(number % 3, number, 0, (64, 64)) for number in range(4)])


def log_odds(logits: tf.Tensor, found: int, of_kind: bool) -> tf.Tensor:
    normal, bacterial, viral = logits
    if of_kind:
        return bacterial - viral if found == BACTERIAL else viral - bacterial
    ill = tf.reduce_logsumexp([bacterial, viral]) - normal
    return -ill if found == NORMAL else ill


def test_map_is_grad_cam_of_the_log_odds(classifier: keras.Model, images: np.ndarray) -> None:
    scorer = scoring_model([classifier], Calibration(1.3, 0.2, 0.5, 0.1))
    found = activation_maps(scorer, images, FOUND, OF_KIND)
    assert found is not None
    assert found.maps.shape == (4, 2, 2)
    assert (found.members, found.mirrored) == (1, False)
    features_of = keras.Model(scorer.input, scorer.get_layer("features").input)
    head = scorer.get_layer("logits")
    for image, map_, finding, of_kind in zip(images, found.maps, FOUND, OF_KIND, strict=True):
        features = tf.convert_to_tensor(features_of(image[None]))
        with tf.GradientTape() as tape:
            tape.watch(features)
            score = log_odds(head(tf.reduce_mean(features, (1, 2)))[0], finding, of_kind)
        weights = tf.reduce_mean(tape.gradient(score, features), (1, 2), keepdims=True)
        grad_cam = np.maximum(0, (weights * features).numpy().sum(-1)[0])
        assert map_ == pytest.approx(grad_cam / max(grad_cam.max(), 1e-30), abs=1e-4)


def test_map_points_to_what_the_finding_is_made_of() -> None:
    """A network whose only feature is brightness, which speaks for bacterial."""
    image = keras.Input((64, 64), dtype="uint8", name="image")
    x = ops.expand_dims(ops.cast(image, "float32") / 255, -1)
    x = keras.layers.AveragePooling2D(16)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(3, use_bias=False, name="answer")(keras.layers.Dropout(0.5)(x))
    model = keras.Model(image, {"probabilities": keras.layers.Softmax()(logits)})
    model.get_layer("answer").set_weights([np.array([[0.0, 5.0, 0.0]])])
    bright = np.zeros((2, 64, 64), np.uint8)
    bright[:, 48:, :16] = 200
    maps = activation_maps(model, bright, [BACTERIAL, NORMAL], [True, False])
    assert maps is not None
    expected = np.zeros((4, 4))
    expected[3, 0] = 1
    assert maps.maps[0] == pytest.approx(expected)
    assert not maps.maps[1].any()  # nothing speaks for normal


def small_network(seed: int) -> keras.Model:
    pixels = keras.Input((64, 64), dtype="float32", name="smoothed")
    x = keras.layers.Conv2D(8, 7, 8, kernel_initializer=keras.initializers.RandomNormal(seed=seed))(
        ops.expand_dims(pixels, -1)
    )
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    logits = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(seed=seed + 1))(x)
    return keras.Model(pixels, logits, name=f"member{seed}")


@pytest.mark.parametrize("mirrored", [False, True])
def test_of_several_networks_the_first_is_shown_and_never_the_mirrored_image(
    images: np.ndarray, mirrored: bool
) -> None:
    image = keras.Input((64, 64), dtype="uint8", name="image")
    smoothed = smooth_about(image, MIDDLE_GREY)
    seen = ops.concatenate([smoothed, ops.flip(smoothed, axis=2)], axis=0) if mirrored else smoothed
    networks = [small_network(1), small_network(5)]
    logits = ops.mean(ops.stack([network(seen) for network in networks]), axis=0)
    if mirrored:
        logits = ops.mean(ops.reshape(logits, (2, -1, 3)), axis=0)
    several = keras.Model(image, {"probabilities": keras.layers.Softmax()(logits)})
    alone = activation_maps(networks[0], np.asarray(smooth_about(images, MIDDLE_GREY)), FOUND, OF_KIND)
    found = activation_maps(several, images, FOUND, OF_KIND)
    assert found is not None
    assert alone is not None
    assert (found.members, found.mirrored) == (2, mirrored)
    assert found.maps == pytest.approx(alone.maps, abs=1e-5)
    assert (alone.members, alone.mirrored) == (1, False)


def test_network_with_another_head_has_no_map() -> None:
    image = keras.Input((64, 64), dtype="uint8", name="image")
    x = keras.layers.Flatten()(ops.cast(image, "float32"))
    model = keras.Model(image, {"probabilities": keras.layers.Dense(3, "softmax")(x)})
    assert activation_maps(model, np.zeros((1, 64, 64), np.uint8), [NORMAL], [False]) is None
