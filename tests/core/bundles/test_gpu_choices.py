"""What `auto` may take on GPUs: what passed parity, of the engines that compute there."""

import dataclasses

import pytest

from pneumonia_core.bundles.capabilities import Capabilities
from pneumonia_core.bundles.choice import EngineChoice, possible_choices
from pneumonia_core.bundles.engines import ONNX_ENGINE
from pneumonia_core.errors import InvalidInput, Remedy

CPU = Capabilities(bfloat16=True, int8=True, onnxruntime=True)
GPU = Capabilities(gpus=((8, 0),), onnxruntime=True)
OLD_GPU = Capabilities(gpus=((6, 1),), onnxruntime=True)
BARE_GPU = Capabilities(gpus=((8, 0),))
WITHOUT_TENSORFLOW = dataclasses.replace(GPU, gpu_engines=(ONNX_ENGINE,))
EXACT, HALF, ONNX_EXACT, ONNX_HALF = (
    f"{engine} {precision}" for engine in ("tensorflow", ONNX_ENGINE) for precision in ("float32", "float16")
)


@pytest.mark.parametrize(
    ("machines", "engine", "precision", "missed", "expected"),
    [
        pytest.param([GPU], "auto", "auto", (), [HALF, EXACT, ONNX_HALF, ONNX_EXACT], id="all of them"),
        pytest.param([GPU, CPU], "auto", "auto", (), [HALF, EXACT, ONNX_HALF, ONNX_EXACT], id="and CPUs"),
        pytest.param([GPU], "auto", "auto", ("float16",), [EXACT, ONNX_EXACT], id="parity"),
        pytest.param([GPU, OLD_GPU], "auto", "auto", (), [EXACT, ONNX_EXACT], id="a GPU without float16"),
        pytest.param([GPU, BARE_GPU], "auto", "auto", (), [HALF, EXACT], id="a node without ONNX Runtime"),
        pytest.param([WITHOUT_TENSORFLOW], "auto", "auto", (), [ONNX_HALF, ONNX_EXACT], id="no TensorFlow"),
        pytest.param([GPU, WITHOUT_TENSORFLOW], "auto", "auto", (), [ONNX_HALF, ONNX_EXACT], id="on one"),
        pytest.param([WITHOUT_TENSORFLOW], "tensorflow", "auto", (), [HALF, EXACT], id="it is named"),
        pytest.param([GPU], "auto", "float32", (), [EXACT, ONNX_EXACT], id="the precision is named"),
        pytest.param([GPU], "tensorflow", "auto", (), [HALF, EXACT], id="the engine is named"),
        pytest.param([GPU], ONNX_ENGINE, "auto", (), [ONNX_HALF, ONNX_EXACT], id="the other one is"),
        pytest.param([GPU], "tensorflow", "float32", (), [EXACT], id="both are"),
        pytest.param([], "auto", "auto", (), [EXACT], id="no node has answered"),
    ],
)
def test_every_engine_and_precision_that_passed_and_computes_on_the_gpus_may_be_taken(
    tiny_bundle, machines, engine, precision, missed, expected
):
    exact = dataclasses.replace(
        tiny_bundle.reports["openvino"]["float32"], auroc_difference=0.0, findings_agreement=1.0
    )
    # In bfloat16 TensorFlow computes on CPUs alone.
    precisions = {"openvino": ("float32",), "tensorflow": ("float32", "bfloat16", "float16")}
    precisions[ONNX_ENGINE] = ("float16", "float32")
    reports = {
        name: {
            each: dataclasses.replace(exact, precision=each, auroc_difference=float(each in missed))
            for each in names
        }
        for name, names in precisions.items()
    }
    bundle = dataclasses.replace(tiny_bundle, reports=reports)
    choices = possible_choices(bundle, engine, precision, machines, gpu=True)
    assert [f"{choice.engine} {choice.precision}" for choice in choices] == expected
    assert all(choice.on_gpu for choice in choices)


def test_tensorflow_computes_in_float16_only_where_the_bundle_holds_that(tiny_bundle):
    (choice,) = possible_choices(tiny_bundle, "tensorflow", "auto", [GPU], gpu=True)
    assert choice == EngineChoice("tensorflow", "float32", on_gpu=True)
    # A run that an earlier version began, which rewrote the graph.
    with pytest.raises(InvalidInput, match="in float16 with tensorflow, which the bundle") as refused:
        possible_choices(tiny_bundle, "tensorflow", "float16", [GPU], gpu=True)
    assert refused.value.remedy is Remedy.START_OVER


def test_nodes_without_an_engine_in_common_on_their_gpus_compute_on_cpus(tiny_bundle):
    assert not any(
        choice.on_gpu
        for choice in possible_choices(tiny_bundle, "auto", "auto", [BARE_GPU, WITHOUT_TENSORFLOW], gpu=True)
    )
