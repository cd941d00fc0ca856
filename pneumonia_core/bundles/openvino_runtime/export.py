"""Exporting a scoring model for OpenVINO, with a first convolution that reads the grey picture itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import openvino
from openvino import opset13 as opset

from pneumonia_core.bundles.openvino_runtime.engine import EXACT


def export_openvino(model: keras.Model, network: Path) -> None:
    """Write the scoring model as OpenVINO's IR to `network`, a path that ends in .xml."""
    model.export(str(network), format="openvino", verbose=False)
    read = openvino.Core().read_model(network)
    if read_grey(read):
        # OpenVINO maps the file that it reads: it is replaced and not written over.
        finished = network.with_stem(f"{network.stem}-grey")
        openvino.save_model(read, finished, compress_to_fp16=False)
        del read
        for suffix in (".xml", ".bin"):
            finished.with_suffix(suffix).replace(network.with_suffix(suffix))


def read_grey(model: openvino.Model) -> int:
    """Let each convolution on a repeated grey picture read that picture once. Returns how many there were.

    A convolution is linear. On channels `scale * grey + offset` it gives the convolution of the grey picture
    by the sum of the scaled kernels, plus what it gives for the offsets alone. That is a constant, which only
    differs where the kernel reaches over the edge. A third of the multiplications, and one channel instead of
    three to write.
    """
    convolutions = [each for each in model.get_ordered_ops() if each.get_type_name() == "Convolution"]
    return sum(map(_read_grey, convolutions))


def _read_grey(convolution: openvino.Node) -> bool:
    """Whether the convolution had a repeated grey picture, and now reads it once."""
    kernels = _constant(convolution.input_value(1))
    channels, geometry = _with_padding(convolution)
    found = _grey_channels(channels)
    if kernels is None or found is None:
        return False
    picture, scale, offset = found
    once = np.einsum("ochw,c->ohw", kernels.astype(np.float64), scale)[:, None].astype(np.float32)
    users = convolution.output(0).get_target_inputs()
    grey = opset.convolution(picture, once, **geometry)
    result = opset.add(grey, _of_offsets(channels, kernels, offset, geometry))
    result.set_friendly_name(convolution.get_friendly_name())
    for user in users:
        user.replace_source_output(result.output(0))
    return True


def _with_padding(convolution: openvino.Node) -> tuple[openvino.Output, dict[str, Any]]:
    """What the convolution reads before it is padded with zeros, and its strides, dilations and pads then."""
    geometry, channels = convolution.get_attributes(), convolution.input_value(0)
    # OpenVINO leaves the padding outside where two convolutions share it.
    pads = _zero_padding(channels.get_node())
    if pads is None or geometry["auto_pad"] not in ("explicit", "valid"):
        return channels, geometry
    begin, end = (
        np.add(geometry[side], pad[2:]).tolist()
        for side, pad in zip(("pads_begin", "pads_end"), pads, strict=True)
    )
    around = {"pads_begin": begin, "pads_end": end, "auto_pad": "explicit"}
    return channels.get_node().input_value(0), {**geometry, **around}


def _zero_padding(pad: openvino.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """How much is added before and behind each axis; None where the node does not add zeros to a picture."""
    if pad.get_type_name() != "Pad" or pad.get_attributes()["pad_mode"] != "constant":
        return None
    begin, end, value = (_constant(pad.input_value(number)) for number in (1, 2, 3))
    if begin is None or end is None or value != 0 or [*begin[:2], *end[:2]] != [0] * 4:
        return None
    return begin, end


def _grey_channels(value: openvino.Output) -> tuple[openvino.Output, np.ndarray, np.ndarray] | None:
    """The picture [B, 1, H, W], and the scale and offset [C] of each channel `scale * picture + offset`.

    None where the channels [B, C, H, W] are not made of one picture.
    """
    scale, offset = np.ones(1), np.zeros(1)
    node = value.get_node()
    while node.get_type_name() in ("Add", "Multiply"):
        constant = _constant(node.input_value(1))
        if constant is None or constant.ndim != 4 or constant.size != constant.shape[1]:
            return None
        # Backwards from the convolution: what was met before is applied to the result of this node.
        if node.get_type_name() == "Add":
            offset = offset + scale * constant.ravel()
        else:
            scale = scale * constant.ravel()
        node = node.input_value(0).get_node()
    pictures = [port.get_source_output() for port in node.inputs()]
    if node.get_type_name() != "Concat" or any(picture != pictures[0] for picture in pictures):
        return None
    if pictures[0].get_partial_shape()[1] != 1:
        return None
    each = np.ones(len(pictures))
    return pictures[0], scale * each, offset * each


def _constant(value: openvino.Output) -> np.ndarray | None:
    node = value.get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def _of_offsets(
    channels: openvino.Output, kernels: np.ndarray, offset: np.ndarray, geometry: Mapping[str, Any]
) -> np.ndarray:
    """What the convolution gives where each of the channels is its offset: float32 [1, K, H, W]."""
    shape = (1, *(side.get_length() for side in list(channels.get_partial_shape())[1:]))
    picture = opset.parameter(shape, np.float32)
    alone = openvino.Model([opset.convolution(picture, kernels, **geometry)], [picture], "offsets")
    compute = openvino.compile_model(alone, "CPU", EXACT)
    return compute(np.broadcast_to(offset.astype(np.float32)[:, None, None], shape))[0]
