"""TensorFlow on GPUs: the network with its trunk in float16, its parity, and XLA."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.tiny_bundles import write_guarded_tiny_bundle
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pneumonia_core.bundles.bundle import open_bundle, read_engine_files, read_keras_model
from pneumonia_core.bundles.choice import check_can_add
from pneumonia_core.bundles.engines import BATCH_SIZE, FLOAT16_GRAPH
from pneumonia_core.bundles.exported import open_exported
from pneumonia_core.bundles.extension import add_float16
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.tensorflow_runtime.engine import TensorflowEngine
from pneumonia_core.bundles.tensorflow_runtime.float16 import float16_trunk
from pneumonia_core.calibration import UNCALIBRATED
from pneumonia_core.errors import InvalidInput
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.networks.domain_guard import DomainGuard
from pneumonia_core.networks.scoring_model import load_scoring_model, scoring_model
from pneumonia_core.phantoms.radiograph import phantom

pytestmark = pytest.mark.usefixtures("exact_float32")
GRAPHS = ("saved_model", "saved_model_float16")


@pytest.fixture(scope="module")
def images():
    return np.stack([phantom(number % 3, number, 0, (32, 32)) for number in range(40)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_guarded_tiny_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def extended(plain, images, tmp_path_factory):
    model = load_scoring_model(read_keras_model(plain))
    held_back = ParityImages(images, np.arange(len(images)) % 3)
    return add_float16(tmp_path_factory.mktemp("float16"), plain, model, held_back)


def test_trunk_is_in_float16_and_what_is_sensitive_is_not(extended):
    loaded = tf.saved_model.load(str(extended.path / GRAPHS[1]))
    frozen = convert_variables_to_constants_v2(loaded.signatures["serving_default"])
    nodes = frozen.graph.as_graph_def().node
    inputs = {node.name: tf.dtypes.as_dtype(node.attr["T"].type).name for node in nodes if "T" in node.attr}
    convolutions = [inputs[node.name] for node in nodes if node.op == "Conv2D"]
    # The filter, the first convolution, and the trunk.
    assert convolutions == ["float32", "float32", "float16", "float16"]
    rest = {inputs[node.name] for node in nodes if node.op in ("MatMul", "Softmax", "Mean", "Sqrt")}
    assert rest == {"float32"}
    kernels = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    halves = [each for each in kernels if each.dtype == tf.float16.as_datatype_enum]
    assert sum(len(each.tensor_shape.dim) == 4 for each in halves) == 2


def test_members_of_a_real_network_compute_in_float16_what_they_do_in_float32():
    keras.utils.set_random_seed(1)
    members = [build_classifier("resnet18", 32) for _ in range(2)]
    width = 128 + 256
    guard = DomainGuard(np.zeros(width), np.ones(width), np.eye(width))
    scorer = scoring_model(members, UNCALIBRATED, guard, mirror=True)
    half = float16_trunk(scorer)
    types = {layer.name: layer.compute_dtype for layer in half.get_layer("member1").layers}
    sensitive = ("conv1", "normalised", "features", "logits", "domain.layer2", "domain.features")
    assert {types[name] for name in sensitive} == {"float32"}
    assert {types[name] for name in ("layer1.0.conv1", "layer2.0.downsample.1", "layer4")} == {"float16"}
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), np.uint8)
    scores, exact = half(images), scorer(images)
    for name, tolerance in (("probabilities", 0.01), ("domain", 0.05)):
        assert scores[name].dtype == "float32"
        difference = np.abs(np.asarray(scores[name]) - np.asarray(exact[name])).max()
        assert 0 < difference < tolerance


def test_parity_of_float16_is_that_of_its_graph_and_the_other_reports_stay(plain, extended, images):
    exact, half = (
        open_exported(extended.path, "tensorflow", precision, 32, threads=1)(images)
        for precision in ("float32", "float16")
    )
    reports = extended.reports["tensorflow"]
    report = reports["float16"]
    difference = np.abs(half.probabilities - exact.probabilities).max()
    assert 0 < difference == pytest.approx(report.largest_difference, abs=1e-5)
    assert report.parity_passed
    assert report.images_per_s == 0
    assert {**extended.reports, "tensorflow": {**reports, "float16": None}} == {
        **plain.reports,
        "tensorflow": {**plain.reports["tensorflow"], "float16": None},
    }
    assert extended.document["engines"] == plain.document["engines"]
    assert extended.model_id == plain.model_id
    with pytest.raises(InvalidInput, match=f"has the engine {FLOAT16_GRAPH} already"):
        check_can_add(extended, FLOAT16_GRAPH)
    check_can_add(plain, FLOAT16_GRAPH)


def test_a_new_bundle_holds_it_where_that_is_asked_for(plain, tmp_path):
    bundle = write_guarded_tiny_bundle(tmp_path, float16=True)
    assert bundle.reports["tensorflow"]["float16"].parity_passed
    assert not (plain.path / GRAPHS[1]).exists()
    assert bundle.model_id == plain.model_id


def test_only_the_graph_of_the_precision_is_shipped_and_it_scores(extended, images, tmp_path):
    for precision, folder in zip(("float32", "float16"), GRAPHS, strict=True):
        files = read_engine_files(extended, "tensorflow", precision)
        assert {name.split("/")[0] for name in files} == {"bundle.json", folder}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    engine = open_exported(tmp_path, "tensorflow", "float16", 32, threads=1)
    assert engine(images).probabilities.shape == (40, 3)
    assert dataclasses.replace(open_bundle(extended.path), path=tmp_path).reports == extended.reports


def test_function_is_compiled_by_xla_for_gpus_and_scores_the_same(extended, images):
    for precision, tolerance in (("float32", 1e-5), ("float16", 1e-3)):
        plain, compiled = (
            open_exported(extended.path, "tensorflow", precision, 32, threads=1, gpu=gpu)
            for gpu in (False, True)
        )
        assert (plain.compiled, compiled.compiled) == (False, True)
        scores, expected = compiled(images), plain(images)
        np.testing.assert_allclose(scores.probabilities, expected.probabilities, atol=tolerance)
        np.testing.assert_allclose(scores.domain, expected.domain, atol=tolerance)


class Uncompilable(tf.Module):
    """A network with an operation that XLA does not know."""

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32), tf.uint8)])
    def score(self, image):
        grey = tf.reduce_mean(tf.cast(image, tf.float32), axis=(1, 2))
        known = tf.strings.to_number(tf.strings.as_string(grey))
        return {"probabilities": tf.stack([known] * 3, axis=-1)}


def test_what_xla_cannot_compile_is_computed_without_it(images, tmp_path):
    network = Uncompilable()
    tf.saved_model.save(network, str(tmp_path), {"serving_default": network.score})
    engine = TensorflowEngine(tmp_path, "float32", 32, BATCH_SIZE, compiled=True)
    assert not engine.compiled
    np.testing.assert_allclose(engine(images).probabilities[:, 0], images.mean(axis=(1, 2)), rtol=1e-4)
