"""A network in ONNX with its trunk in float16, and what it computes on a CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pneumonia_core.bundles.engines import PICTURE_CHANNELS

# These make a vector of a feature map.
_POOLINGS: Final = ("GlobalAveragePool", "ReduceMean")


def to_float16(network: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 network with all operations on feature maps in float16, weights too.

    What is sensitive stays in float32: smoothing, first convolution, head and domain guard.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(network)
    graph = converted.graph
    results = {output for node in trunk(graph) for output in node.output}
    floats = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    integers = {each.name for each in graph.initializer} - floats.keys()
    nodes: list[onnx.NodeProto] = []
    present: set[str] = set()
    for node in graph.node:
        is_inside = node.output[0] in results
        for number, name in enumerate(node.input):
            if not name or name in integers or (name in results) == is_inside:
                continue
            node.input[number] = other = f"{name}:{'float16' if is_inside else 'float32'}"
            if other in present:
                continue
            present.add(other)
            if name in floats:
                values = numpy_helper.to_array(floats[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(values, other))
            else:
                kind = TensorProto.FLOAT16 if is_inside else TensorProto.FLOAT
                nodes.append(helper.make_node("Cast", [name], [other], to=kind))
        nodes.append(node)
    _replace_nodes(graph, nodes)
    return converted


def trunk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The operations on feature maps, from behind the first convolution to before the poolings."""
    out_channels = {weights.name: weights.dims[0] for weights in graph.initializer if len(weights.dims) == 4}
    maps: set[str] = set()
    for node in graph.node:
        if maps.intersection(node.input):
            if node.op_type in _POOLINGS:
                continue
            yield node
            maps.update(node.output)
        elif node.op_type == "Conv" and out_channels.get(node.input[1], 0) > PICTURE_CHANNELS:
            maps.update(node.output)


def read_rounded(model: Path) -> bytes:
    """The network that computes on a CPU what the float16 network in this file computes on a GPU."""
    return rounded_as_float16(onnx.load(model)).SerializeToString()


def rounded_as_float16(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network of `to_float16` for a CPU, which adds in float32 and rounds each result to float16.

    That is what a GPU's tensor cores do. A CPU given the network itself would round the weights alone: for
    it ONNX Runtime computes in float32 and leaves out the casts in between (measured).
    """
    rounded = onnx.ModelProto()
    rounded.CopyFrom(network)
    types = _element_types(rounded)
    nodes: list[onnx.NodeProto] = []
    widened: set[str] = set()
    for node in rounded.graph.node:
        if node.op_type == "Cast" or types.get(node.output[0]) != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        for number, name in enumerate(node.input):
            if types.get(name) == TensorProto.FLOAT16:
                if name not in widened:
                    nodes.append(helper.make_node("Cast", [name], [f"{name}:wide"], to=TensorProto.FLOAT))
                    widened.add(name)
                node.input[number] = f"{name}:wide"
        (result,) = node.output
        node.output[0] = f"{result}:sum"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT16)]
    _replace_nodes(rounded.graph, nodes)
    return rounded


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give the graph these nodes, and take from it the weights that none of them reads."""
    read = {name for node in nodes for name in node.input}
    kept = [weights for weights in graph.initializer if weights.name in read]
    replaced = helper.make_graph(nodes, graph.name, graph.input, graph.output, kept)
    graph.CopyFrom(replaced)


def _element_types(network: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(network).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weights.name: weights.data_type for weights in graph.initializer}
