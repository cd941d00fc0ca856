"""The bundle of a small network, and one that holds it in ONNX too."""

import shutil

import numpy as np
import pytest
from support.tiny_bundles import write_guarded_tiny_bundle

from pneumonia_core.bundles.bundle import read_keras_model
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.networks.scoring_model import load_scoring_model
from pneumonia_core.phantoms.radiograph import phantom


@pytest.fixture(scope="session")
def images():
    """More than one batch, and not a whole number of them."""
    return np.stack([phantom(number % 3, number, 0, (32, 32)) for number in range(40)])


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    return write_guarded_tiny_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def model(plain):
    return load_scoring_model(read_keras_model(plain))


@pytest.fixture(scope="session")
def extended(plain, model, images, tmp_path_factory):
    """The bundle with the engine, beside a copy of it in the same folder."""
    for name in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(name, reason="the extra onnx is not installed")
    from pneumonia_core.bundles.extension import add_onnx_engine

    models = tmp_path_factory.mktemp("onnx")
    shutil.copytree(plain.path, models / plain.path.name)
    return add_onnx_engine(models, plain, model, ParityImages(images, np.arange(len(images)) % 3))
