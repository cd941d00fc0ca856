"""The network in ONNX: the bundle that holds it too, its scores, and machines without ONNX Runtime."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from support.scoring import REPOSITORY

from pneumonia_core.bundles.bundle import open_bundle, read_engine_files
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities
from pneumonia_core.bundles.choice import check_can_add, load_engine, settle_engine
from pneumonia_core.bundles.engines import ONNX_ENGINE
from pneumonia_core.bundles.onnx_runtime.installed import check_onnx_export
from pneumonia_core.bundles.parity import predict
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


def test_bundle_with_the_engine_is_the_same_model_beside_the_old_one(extended, plain):
    assert extended.path.name == f"{plain.path.name}-2"
    assert extended.model_id == plain.model_id
    assert open_bundle(extended.path.parent / plain.path.name).reports == plain.reports
    assert {name: each for name, each in extended.reports.items() if name != ONNX_ENGINE} == plain.reports
    assert plain.document["files"].items() <= extended.document["files"].items()
    assert set(read_engine_files(extended, ONNX_ENGINE, "float16")) == {
        *("bundle.json", "onnx/model.onnx", "onnx/model_float16.onnx")
    }
    with pytest.raises(InvalidInput, match="the engine onnxruntime already"):
        check_can_add(extended, ONNX_ENGINE)


def test_scores_are_those_of_keras_in_float32(extended, model, images):
    exact = predict(model, images)
    for threads in (1, 2):
        engine = load_engine(extended, ONNX_ENGINE, threads=threads)
        assert (engine.name, engine.precision) == (ONNX_ENGINE, "float32")
        scores = engine(images)
        np.testing.assert_allclose(scores.probabilities, exact.probabilities, rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores.domain, exact.domain, rtol=1e-4)
        np.testing.assert_array_equal(engine(images[7:8]).probabilities, scores.probabilities[7:8])
    report = extended.engines[ONNX_ENGINE]
    assert report.parity_passed
    assert report.largest_difference < 1e-4
    assert report.auroc_bacterial_difference is not None


def test_it_scores_without_the_frameworks_of_the_other_engines(extended):
    code = (
        "import sys, numpy\n"
        "from pneumonia_core.bundles.bundle import open_bundle\n"
        "from pneumonia_core.bundles.choice import load_engine\n"
        f"engine = load_engine(open_bundle({str(extended.path)!r}), 'onnxruntime')\n"
        "assert engine(numpy.zeros((1, 32, 32), 'uint8')).probabilities.shape == (1, 3)\n"
        "print(sorted({'tensorflow', 'keras', 'openvino', 'onnx', 'tf2onnx'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(InvalidInput, match="tf2onnx is not installed") as refused:
        check_onnx_export()
    assert refused.value.remedy is Remedy.INSTALL_ONNX


WITH, WITHOUT = Capabilities(onnxruntime=True), Capabilities()


@pytest.mark.parametrize(
    ("missed_parity", "machines", "engine"),
    [
        pytest.param([], [WITH], "openvino", id="OpenVINO is faster"),
        pytest.param(["openvino"], [WITH, WITH], ONNX_ENGINE, id="every machine has it"),
        pytest.param(["openvino", ONNX_ENGINE], [WITH], "tensorflow", id="failed parity"),
        pytest.param(["openvino"], [WITH, WITHOUT], "tensorflow", id="one machine lacks it"),
        pytest.param(["openvino"], [], "tensorflow", id="no machine yet"),
    ],
)
def test_auto_takes_it_before_tensorflow_where_every_machine_has_it(plain, missed_parity, machines, engine):
    report = plain.engines["openvino"]
    exact = dataclasses.replace(report, precision="float32", auroc_difference=0.0, findings_agreement=1.0)
    reports = {
        name: {
            "float32": dataclasses.replace(
                exact, images_per_s=rate, findings_agreement=0.9 if name in missed_parity else 1.0
            )
        }
        for name, rate in {"openvino": 1.0, ONNX_ENGINE: 2.0, "tensorflow": 3.0}.items()
    }
    bundle = dataclasses.replace(plain, reports=reports)
    choice = settle_engine(bundle, "auto", "auto", machines)
    assert (choice.engine, choice.precision, choice.on_gpu) == (engine, "float32", False)


def test_machine_without_it_says_how_to_get_it(extended, monkeypatch):
    with pytest.raises(InvalidInput, match="onnxruntime is not installed on every node") as refused:
        settle_engine(extended, ONNX_ENGINE, "auto", [WITH, WITHOUT])
    assert refused.value.remedy is Remedy.INSTALL_ONNX
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not measure_capabilities(look_for_gpus=False).onnxruntime
    with pytest.raises(PneumoniaError, match="onnxruntime is not installed on this node") as failed:
        load_engine(extended, ONNX_ENGINE)
    assert failed.value.remedy is Remedy.INSTALL_ONNX
    assert load_engine(extended).name != ONNX_ENGINE


GPU, OLD_GPU, BARE_GPU = (
    Capabilities(gpus=gpus, onnxruntime=has_it)
    for gpus, has_it in ((((8, 0),), True), (((6, 1),), True), (((8, 0),), False))
)


@pytest.mark.parametrize(
    ("engine", "changes", "machines", "gpu", "choice"),
    [
        pytest.param(ONNX_ENGINE, {}, [GPU, WITHOUT], True, (ONNX_ENGINE, "float16", True), id="float16"),
        pytest.param(
            ONNX_ENGINE, {"findings_agreement": 0.9}, [GPU], True, (ONNX_ENGINE, "float32", True),
            id="float16 missed parity",
        ),
        pytest.param(
            ONNX_ENGINE, {}, [GPU, OLD_GPU], True, (ONNX_ENGINE, "float32", True), id="a GPU without it",
        ),
        pytest.param(ONNX_ENGINE, {}, [GPU], False, (ONNX_ENGINE, "float32", False), id="CPUs"),
        pytest.param("auto", {}, [GPU], True, ("tensorflow", "float32", True), id="not named"),
    ],
)  # fmt: skip
def test_gpus_compute_in_float16_where_it_passed_parity(extended, engine, changes, machines, gpu, choice):
    reports = {
        name: {
            precision: dataclasses.replace(report, auroc_difference=0.0, findings_agreement=1.0)
            for precision, report in each.items()
        }
        for name, each in extended.reports.items()
    }
    half = reports[ONNX_ENGINE]["float16"]
    reports[ONNX_ENGINE]["float16"] = dataclasses.replace(half, **changes)
    settled = settle_engine(dataclasses.replace(extended, reports=reports), engine, "auto", machines, gpu)
    assert (settled.engine, settled.precision, settled.on_gpu) == choice


def test_node_with_a_gpu_must_have_it_too(extended):
    with pytest.raises(InvalidInput, match="not installed on every node"):
        settle_engine(extended, ONNX_ENGINE, "auto", [GPU, BARE_GPU], gpu=True)
