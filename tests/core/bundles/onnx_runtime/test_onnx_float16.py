"""ONNX on GPUs: the graph in float16, what it computes, and the providers that compute it."""

import numpy as np
import pytest

from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.bundles.engines import ONNX_ENGINE
from pneumonia_core.bundles.exported import open_exported
from pneumonia_core.errors import PneumoniaError, Remedy

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from onnx import TensorProto, helper, numpy_helper, shape_inference  # noqa: E402

from pneumonia_core.bundles.onnx_runtime.float16 import rounded_as_float16, to_float16  # noqa: E402
from pneumonia_core.bundles.onnx_runtime.gpus import driver_cards, driver_gpus  # noqa: E402
from pneumonia_core.bundles.onnx_runtime.providers import (  # noqa: E402
    CPU,
    CUDA,
    TENSORRT,
    engine_cache,
    gpu_providers,
    load_providers,
)


def network(first, second):
    """Two convolutions with these weights on a picture uint8 [1, 1, 4, 4], and the mean of each channel."""
    shapes = {"picture": [1, 1, 4, 4], "probabilities": [1, 4, 1, 1]}
    picture, result = (
        helper.make_tensor_value_info(name, kind, shapes[name])
        for name, kind in (("picture", TensorProto.UINT8), ("probabilities", TensorProto.FLOAT))
    )
    weights = {"first": np.full((4, 1, 1, 1), first), "second": np.full((4, 4, 1, 1), second)}
    nodes = [
        helper.make_node("Cast", ["picture"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["grey", "first"], ["maps"]),
        helper.make_node("Conv", ["maps", "second"], ["deeper"]),
        helper.make_node("Add", ["deeper", "maps"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["probabilities"]),
    ]
    arrays = [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()]
    graph = helper.make_graph(nodes, "network", [picture], [result], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def run(model, grey):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    (result,) = session.run(None, {"picture": np.full((1, 1, 4, 4), grey, np.uint8)})
    return float(result.max())


def test_trunk_is_in_float16_and_what_is_sensitive_is_not():
    model = to_float16(network(1.0, 0.1))
    onnx.checker.check_model(model, full_check=True)
    graph = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    computed = [(node.op_type, kinds[node.output[0]]) for node in graph.node if node.op_type != "Cast"]
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    assert computed == [("Conv", single), ("Conv", half), ("Add", half), ("GlobalAveragePool", single)]
    assert {each.name: each.data_type for each in graph.initializer} == {
        "first": single,
        "second:float16": half,
    }


@pytest.mark.parametrize(
    ("first", "second", "grey", "result"),
    [
        pytest.param(1000.0, 0.01, 100, np.inf, id="a feature map beyond the range of float16"),
        pytest.param(100.0, 1.0, 200, np.inf, id="a sum beyond it"),
        pytest.param(8.0, 0.0078125, 129, 1064.0, id="a sum that float16 has no digits for"),
    ],
)
def test_cpu_rounds_what_a_gpu_would_round(first, second, grey, result):
    """The exact results are 104 000, 100 000 and 1064.25."""
    assert run(rounded_as_float16(to_float16(network(first, second))), grey) == result


def test_parity_of_float16_is_that_of_the_graph_for_gpus(extended, images):
    exact, half = (
        open_exported(extended.path, ONNX_ENGINE, precision, 32, threads=1)(images)
        for precision in ("float32", "float16")
    )
    report = extended.reports[ONNX_ENGINE]["float16"]
    difference = np.abs(half.probabilities - exact.probabilities).max()
    assert 0 < difference == pytest.approx(report.largest_difference, abs=1e-5)
    assert report.parity_passed
    assert extended.engines[ONNX_ENGINE].precision == "float32"


def test_float16_is_computed_by_tensorrt_with_a_cache_and_float32_by_cuda_alone(tmp_path):
    everything = [TENSORRT, CUDA, CPU]
    (tensorrt, kept), (cuda, exact) = gpu_providers("float16", everything, tmp_path)
    assert (tensorrt, cuda) == (TENSORRT, CUDA)
    assert kept["trt_engine_cache_enable"] == kept["trt_timing_cache_enable"] == "1"
    assert kept["trt_engine_cache_path"] == kept["trt_timing_cache_path"] == str(tmp_path)
    # With it TensorRT would also compute in float16 what is float32 in the graph.
    assert "trt_fp16_enable" not in kept
    assert exact["use_tf32"] == "0"
    assert gpu_providers("float32", everything, tmp_path) == [(CUDA, exact)]
    assert gpu_providers("float16", [CUDA, CPU], tmp_path) == [(CUDA, exact)]
    assert gpu_providers("float16", [CPU], tmp_path) == []


def test_engine_cache_is_the_users_own_and_another_for_another_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    models = [tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "copy.onnx"]
    for path, content in zip(models, (b"a", b"b", b"a"), strict=True):
        path.write_bytes(content)
    first, second, same = map(engine_cache, models)
    assert first == same != second
    assert first.is_relative_to(tmp_path / "cache")
    assert first.stat().st_mode & 0o777 == 0o700


def test_without_a_gpu_it_says_so_and_does_not_take_the_cpu(extended, tmp_path, monkeypatch):
    if CUDA in load_providers():
        pytest.skip("this machine has the library for GPUs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(PneumoniaError, match="uses no GPU on this node") as failed:
        open_exported(extended.path, ONNX_ENGINE, "float16", 32, 1, gpu=True)
    assert failed.value.remedy is Remedy.INSTALL_ONNX_GPU
    if not measure_capabilities(look_for_gpus=True, engine=ONNX_ENGINE).gpus:
        with pytest.raises(PneumoniaError, match="ONNX Runtime sees no GPU on this node") as failed:
            load_engine(extended, ONNX_ENGINE, gpu=True)
        assert failed.value.remedy is Remedy.INSTALL_ONNX_GPU


class Driver:
    """The calls of the CUDA driver that are used, on a machine with these GPUs."""

    def __init__(self, gpus):
        self.gpus = gpus

    def cuInit(self, _flags):
        return 0 if self.gpus else 100

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number + 7
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.gpus[device.value - 7][attribute - 75]
        return 0

    def cuDeviceGetName(self, name, _size, device):
        name.value = f"NVIDIA {device.value - 7}".encode()
        return 0


@pytest.mark.parametrize("gpus", [((7, 5), (9, 0)), ()])
def test_gpus_are_those_of_the_driver(gpus):
    assert driver_gpus(Driver(gpus)) == gpus
    assert driver_cards(Driver(gpus)) == tuple(f"NVIDIA {number}" for number in range(len(gpus)))
