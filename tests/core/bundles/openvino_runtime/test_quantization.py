"""A network in int8: what is quantised, what stays in float32, and the bundle that holds it too."""

import logging
import shutil
import sys

import numpy as np
import openvino
import pytest
from openvino import opset13 as opset
from support.tiny_bundles import write_guarded_tiny_bundle

from pneumonia_core.bundles.bundle import open_bundle, read_engine_files, read_keras_model
from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.choice import check_can_add, check_engine, load_engine
from pneumonia_core.bundles.engines import INT8, INT8_ENGINE, EngineReport
from pneumonia_core.bundles.openvino_runtime.quantization import (
    check_quantization,
    domain_scores,
    fit_domain_scores,
    quantize_engine,
)
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.networks.scoring_model import load_scoring_model
from pneumonia_core.phantoms.radiograph import phantom

IMAGES = np.stack([phantom(number % 3, number, 0, (32, 32)) for number in range(32)])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_guarded_tiny_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def extended(plain, tmp_path_factory):
    """The bundle with the int8 engine, beside a copy of it in the same folder."""
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    if not measure_capabilities(look_for_gpus=False).int8:
        pytest.skip("this processor does not multiply int8")
    from pneumonia_core.bundles.extension import add_int8_engine

    models = tmp_path_factory.mktemp("int8")
    shutil.copytree(plain.path, models / plain.path.name)
    model = load_scoring_model(read_keras_model(plain))
    return add_int8_engine(models, plain, model, IMAGES, ParityImages(IMAGES, np.arange(32) % 3))


def test_bundle_with_one_more_engine_is_the_same_model_beside_the_old_one(extended, plain):
    assert extended.path.name == f"{plain.path.name}-2"
    assert extended.model_id == plain.model_id
    assert open_bundle(extended.path.parent / plain.path.name).engines == plain.engines
    assert {n: each for n, each in extended.engines.items() if n != INT8_ENGINE} == plain.engines
    old, new = plain.document["files"], extended.document["files"]
    assert old.items() <= new.items()
    assert new.keys() - old.keys() == {"openvino/model_int8.xml", "openvino/model_int8.bin"}
    assert extended.document["quantization"]["images"] == 32
    with pytest.raises(InvalidInput, match="already"):
        check_can_add(extended, INT8_ENGINE)


def test_bundle_is_written_with_the_engine_from_the_start(extended, plain, tmp_path, caplog):
    written = write_guarded_tiny_bundle(tmp_path, int8=True)
    assert written.path.name == f"{plain.path.name}"
    assert written.document["quantization"] == extended.document["quantization"]
    assert written.engines.keys() == extended.engines.keys()
    found, expected = (load_engine(bundle, INT8_ENGINE)(IMAGES) for bundle in (written, extended))
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    # NNCF leaves the messages of others alone.
    logging.getLogger("pneumonia_core").warning("heard")
    assert "heard" in caplog.text


def test_trunk_is_quantised_and_what_is_sensitive_is_not(extended):
    model = openvino.Core().read_model(extended.path / "openvino" / "model_int8.xml")
    quantised = {"Convolution": [], "MatMul": []}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() in quantised:
            inputs = [value.get_node().get_type_name() for value in operation.input_values()]
            channels = operation.input_value(0).get_partial_shape()[1].get_length()
            quantised[operation.get_type_name()].append((channels, "FakeQuantize" in inputs))
    smoothing_and_first = [each for each in quantised["Convolution"] if each[0] <= 3]
    assert [each[0] for each in smoothing_and_first] == [1, 1]
    assert not any(is_int8 for _, is_int8 in [*smoothing_and_first, *quantised["MatMul"]])
    assert len(quantised["MatMul"]) == 2
    assert any(is_int8 for _, is_int8 in quantised["Convolution"])


def test_engine_computes_in_int8_what_its_report_says(extended):
    report = extended.engines[INT8_ENGINE]
    engine = load_engine(extended, INT8_ENGINE)
    assert (engine.name, engine.precision, report.precision) == (INT8_ENGINE, "int8", "int8")
    model = load_scoring_model(read_keras_model(extended))
    scores, exact = engine(IMAGES), model(IMAGES)
    difference = np.abs(scores.probabilities - np.asarray(exact["probabilities"])).max()
    assert 0 < difference == pytest.approx(report.largest_difference, abs=1e-4)
    assert report.auroc_bacterial_difference is not None
    np.testing.assert_allclose(scores.domain, exact["domain"], rtol=0.02)


def model_of_domain_scores(noise):
    """A model whose domain score is the root of an image's mean square, and of the noise."""
    images = opset.parameter([-1, 4, 4], np.uint8, name="images")
    values = opset.convert(images, "f32")
    mean = opset.reduce_mean(opset.multiply(values, values), np.array([1, 2]))
    scores = opset.sqrt(opset.add(mean, np.float32(noise)))
    scores.output(0).get_tensor().set_names({"domain"})
    return openvino.Model([scores], [images])


def test_domain_scores_lose_what_rounding_adds_to_each():
    images = np.random.default_rng(0).integers(1, 9, (64, 4, 4), np.uint8)
    exact, rounded = model_of_domain_scores(0.0), model_of_domain_scores(20.0)
    expected, shifted = domain_scores(exact, images), domain_scores(rounded, images)
    assert np.abs(shifted - expected).min() > 1
    fit_domain_scores(rounded, expected, shifted)
    np.testing.assert_allclose(domain_scores(rounded, images), expected, rtol=1e-4)
    # A picture without any feature: the line is below zero there, and a root of that would be no number.
    assert np.isfinite(domain_scores(rounded, np.zeros((1, 4, 4), np.uint8)))


def report(**figures):
    passing = {"precision": "int8", "images_per_s": 1.0, "auroc_difference": 0.0, "findings_agreement": 1.0}
    return EngineReport(**{**passing, "largest_difference": 0.0, "domain_agreement": 1.0, **figures})


@pytest.mark.parametrize(
    ("figures", "controlled"),
    [({}, False), ({"domain_agreement": 0.5}, False), ({"findings_agreement": 0.9}, True)],
    ids=["parity", "guard", "findings"],
)
def test_only_findings_that_disagree_take_operations_back_to_float32(extended, tmp_path, figures, controlled):
    shutil.copytree(extended.path / "openvino", tmp_path / "openvino")
    made, reports = quantize_engine(tmp_path, IMAGES, lambda: {INT8: report(**figures)})
    assert made["quantization"]["accuracy_control"] is controlled
    assert reports[INT8].parity_passed is not bool(figures)


def test_files_of_each_engine_are_shipped_without_those_of_the_other(extended):
    for engine, precision, name in (("openvino", "float32", "model"), (INT8_ENGINE, "int8", "model_int8")):
        files = read_engine_files(extended, engine, precision)
        assert set(files) == {"bundle.json", f"openvino/{name}.xml", f"openvino/{name}.bin"}


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InvalidInput, match="NNCF, which is not installed") as refused:
        check_quantization()
    assert refused.value.remedy is Remedy.INSTALL_INT8


def test_bundle_without_the_engine_says_which_it_has(plain):
    with pytest.raises(InvalidInput, match="has no engine 'openvino-int8'; it has openvino, tensorflow"):
        check_engine(plain, INT8_ENGINE)
