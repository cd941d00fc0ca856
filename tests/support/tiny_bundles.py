"""Bundles of a small network with fixed random weights, which take a second to write and none to compute."""

from pathlib import Path

import numpy as np

from pneumonia_core.bundles.bundle import Bundle


def write_tiny_bundle(folder: Path, pneumonia_threshold: float = 0.5) -> Bundle:
    """A bundle of a small convolutional network, 64 px. Another threshold makes another model."""
    import keras
    from keras import ops

    from pneumonia_core.bundles.bundle import ModelSpec
    from pneumonia_core.bundles.parity import ParityImages
    from pneumonia_core.bundles.writer import write_bundle
    from pneumonia_core.findings import Thresholds

    keras.utils.set_random_seed(5)
    image = keras.Input((64, 64), dtype="uint8", name="image")
    x = ops.expand_dims(ops.cast(image, "float32") / 127.5 - 1.0, -1)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=20.0, seed=1))(x)
    model = keras.Model(image, {"probabilities": keras.layers.Softmax(name="probabilities")(x)})
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (64, 64, 64)).astype(np.uint8)
    parity = ParityImages(images, np.arange(64) % 3)
    thresholds = Thresholds(pneumonia_threshold, 0.5)
    spec = ModelSpec("tiny", 64, thresholds, "none", {"note": "fixed random weights"})
    baseline = np.full((10, 3), 1 / 3, np.float32)
    return write_bundle(folder, model, spec, parity, baseline, {"MODEL_CARD.md": "# Tiny\n"})


def write_guarded_tiny_bundle(folder: Path, int8: bool = False, float16: bool = False) -> Bundle:
    """A bundle of a small network with filter, trunk, head and guard as in a real one, 32 px."""
    import keras
    from keras import layers, ops

    from pneumonia_core.bundles.bundle import ModelSpec
    from pneumonia_core.bundles.parity import ParityImages
    from pneumonia_core.bundles.writer import write_bundle
    from pneumonia_core.domain import Domain
    from pneumonia_core.findings import Thresholds
    from pneumonia_core.phantoms.radiograph import phantom

    keras.utils.set_random_seed(5)
    image = keras.Input((32, 32), dtype="uint8", name="image")
    grey = layers.Conv2D(1, 3, padding="same")(ops.expand_dims(ops.cast(image, "float32") / 255.0, -1))
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(ops.concatenate([grey, grey, grey], axis=-1))
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, strides=2, activation="relu")(x))
    domain = ops.sqrt(ops.mean(ops.square(layers.Dense(16, use_bias=False)(x)), axis=-1))
    outputs = {
        "probabilities": layers.Softmax(name="probabilities")(layers.Dense(3)(x)),
        "domain": layers.Identity(name="domain")(domain),
    }
    images = np.stack([phantom(number % 3, number, 0, (32, 32)) for number in range(32)])
    spec = ModelSpec("tiny", 32, Thresholds(0.5, 0.5), "none", {}, Domain(1.0, None))
    baseline = np.full((10, 3), 1 / 3, np.float32)
    parity = ParityImages(images, np.arange(32) % 3)
    calibration = images if int8 else None
    model = keras.Model(image, outputs)
    return write_bundle(folder, model, spec, parity, baseline, {}, calibration, float16)
