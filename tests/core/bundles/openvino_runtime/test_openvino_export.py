"""The first convolution of a network reads the grey picture once, and gives what it gave."""

import keras
import numpy as np
import openvino
import pytest
from keras import layers, ops

from pneumonia_core.bundles.openvino_runtime.engine import EXACT
from pneumonia_core.bundles.openvino_runtime.export import export_openvino

SIZE = 32
SCALE, OFFSET = (0.5, 1.0, 2.0), (-30.0, 10.0, 100.0)
# White up to its edge: there, what is outside of a picture shows most.
IMAGES = np.stack(
    [
        np.full((SIZE, SIZE), 255),
        np.zeros((SIZE, SIZE)),
        np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)),
    ]
).astype(np.uint8)


def network(channels_of, convolve):
    keras.utils.set_random_seed(1)
    image = keras.Input((SIZE, SIZE), dtype="uint8", name="image")
    grey = ops.expand_dims(ops.cast(image, "float32"), -1)
    return keras.Model(image, {"features": layers.Identity(name="features")(convolve(channels_of(grey)))})


def repeated(grey):
    return ops.concatenate([grey, grey, grey], axis=-1)


def rescaled(grey):
    return layers.Rescaling(SCALE, OFFSET)(repeated(grey))


def padded_by_itself(x):
    return layers.Conv2D(8, 7, strides=2)(layers.ZeroPadding2D(3)(x))


def channels_read(model, tmp_path):
    """The input channels of each convolution as exported, and the features that the file gives."""
    export_openvino(model, tmp_path / "model.xml")
    read = openvino.Core().read_model(tmp_path / "model.xml")
    convolutions = [each for each in read.get_ordered_ops() if each.get_type_name() == "Convolution"]
    features = openvino.compile_model(read, "CPU", EXACT)(IMAGES)["features"]
    return [each.input_value(0).get_partial_shape()[1].get_length() for each in convolutions], features


@pytest.mark.parametrize("channels_of", [repeated, rescaled])
@pytest.mark.parametrize("convolve", [padded_by_itself, layers.Conv2D(8, 3, strides=2, padding="same")])
def test_convolution_on_a_repeated_picture_reads_it_once(channels_of, convolve, tmp_path):
    model = network(channels_of, convolve)
    channels, features = channels_read(model, tmp_path)
    assert channels == [1]
    expected = model.predict(IMAGES, verbose=0)["features"]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_channels_of_different_pictures_stay(tmp_path):
    model = network(lambda grey: ops.concatenate([grey, grey, grey**2], axis=-1), layers.Conv2D(8, 3))
    channels, features = channels_read(model, tmp_path)
    assert channels == [3]
    np.testing.assert_allclose(features, model.predict(IMAGES, verbose=0)["features"], rtol=1e-4, atol=1)


def test_every_member_of_a_bundle_reads_the_picture_once(tmp_path):
    def members(x):
        pixels = keras.Input(x.shape[1:])
        nested = [keras.Model(pixels, padded_by_itself(pixels), name=f"member{n}") for n in range(2)]
        return ops.concatenate([member(x) for member in nested], axis=-1)

    model = network(rescaled, members)
    channels, features = channels_read(model, tmp_path)
    assert channels == [1, 1]
    expected = model.predict(IMAGES, verbose=0)["features"]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
