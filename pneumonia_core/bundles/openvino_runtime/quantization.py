"""Quantising an exported network to int8 with NNCF; only this module uses it."""

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from openvino import opset13 as opset

from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.engines import ENGINE_FILES, INT8, INT8_ENGINE, PICTURE_CHANNELS, Reports
from pneumonia_core.bundles.openvino_runtime.engine import EXACT
from pneumonia_core.bundles.openvino_runtime.export import read_grey
from pneumonia_core.errors import InvalidInput, Remedy

# Images that suffice to measure the ranges of activations, and what a quantised operation changes.
CALIBRATION_IMAGES: Final = 300
# How far the largest of an image's probabilities may move, in the mean: as far as by bfloat16, with which
# findings agree (measured). Operations that move it further stay in float32.
MAX_MEAN_DIFFERENCE: Final = 0.003
# Images on which NNCF ranks the operations by what they change.
_RANKING_IMAGES: Final = 100
_BATCH: Final = 32
_LEAST_DEVIATION: Final = 1e-6


def check_quantization() -> None:
    """Raise InvalidInput where networks cannot be quantised here: without NNCF, or without fast int8."""
    if importlib.util.find_spec("nncf") is None:
        raise InvalidInput(
            f"the engine {INT8_ENGINE} is made with NNCF, which is not installed.", Remedy.INSTALL_INT8
        )
    if not measure_capabilities(look_for_gpus=False).int8:
        raise InvalidInput(
            f"the engine {INT8_ENGINE} cannot be measured on this machine, whose processor does not multiply "
            "int8 (VNNI or AMX). Make it on another one."
        )


def quantize_engine(
    folder: Path, images: np.ndarray, measure: Callable[[], Reports]
) -> tuple[dict[str, object], Reports]:
    """Write INT8_ENGINE beside the OpenVINO engine of the bundle in `folder`.

    It is calibrated on up to CALIBRATION_IMAGES of `images` uint8 [N, H, W], evenly spread. Where findings
    miss parity, which `measure` tells, it is made again, slower and with fewer operations in int8. Returns
    what bundle.json says of how it was made, and its parity.
    """
    spread = np.unique(np.linspace(0, len(images) - 1, min(len(images), CALIBRATION_IMAGES)).round())
    chosen = images[spread.astype(int)]
    source, quantized = (folder / f"{ENGINE_FILES[name]}xml" for name in ("openvino", INT8_ENGINE))
    controlled = False
    quantize(source, chosen, quantized, controlled)
    reports = measure()
    # The control looks at probabilities alone: domain scores gain nothing by it.
    if not reports[INT8].findings_agree:
        controlled = True
        quantize(source, chosen, quantized, controlled)
        reports = measure()
    version = importlib.metadata.version("nncf")
    made = {"images": len(chosen), "nncf": version, "accuracy_control": controlled}
    return {"quantization": made}, reports


def quantize(network: Path, images: np.ndarray, quantized: Path, controlled: bool) -> None:
    """Write the OpenVINO `network` with its trunk in int8 to `quantized`.

    It is calibrated on `images` uint8 [N, H, W]. Where it is `controlled`, on these NNCF takes back to
    float32 the operations that move the probabilities by more than MAX_MEAN_DIFFERENCE: minutes for a
    ResNet-18, up to half an hour for a ResNet-50. Smoothing, first convolution, head and domain guard stay in
    float32 anyway; the guard is fitted to the features that the quantised trunk gives it, and its scores to
    those in float32.
    """
    model = openvino.Core().read_model(network)
    # Bundles written before this was done at export have it only here.
    read_grey(model)
    # NNCF would send usage data to its makers.
    os.environ.setdefault("NNCF_CI", "1")
    # Its progress would go to stdout, which is for a command's result. In a log it would be noise.
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        result = _quantized(model, [image[None] for image in images], controlled)
    if any("domain" in output.get_names() for output in model.outputs):
        features, scores = _guard_outputs(model, images)
        _fit_guard(result, features, _guard_outputs(result, images)[0])
        fit_domain_scores(result, scores, domain_scores(result, images))
    # The weights that stay in float32 stay as they are.
    openvino.save_model(result, quantized, compress_to_fp16=False)


def _quantized(model: openvino.Model, images: Sequence[np.ndarray], controlled: bool) -> openvino.Model:
    """The model quantised on these images uint8 [1, H, W]."""
    # Only making such an engine needs NNCF.
    import nncf

    # Its own function for this also sets the level of our handlers.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    common: dict[str, Any] = {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(images),
        # Layer by layer, each with what reaches it in int8: half the error of the fast correction (measured).
        "fast_bias_correction": False,
        "ignored_scope": nncf.IgnoredScope(names=sensitive_operations(model)),
    }
    # It would narrow weights for processors that add in 16 bits, on which this engine does not run.
    wide = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE)
    if not controlled:
        return nncf.quantize(model, nncf.Dataset(images), advanced_parameters=wide, **common)
    compiled = openvino.compile_model(model, "CPU", EXACT)
    expected = [compiled(image)["probabilities"].copy() for image in images]
    return nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset(images),
        nncf.Dataset(list(zip(images, expected, strict=True))),
        _closeness,
        max_drop=MAX_MEAN_DIFFERENCE,
        **common,
        advanced_quantization_parameters=wide,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=_RANKING_IMAGES
        ),
    )


def sensitive_operations(model: openvino.Model) -> list[str]:
    """The names of all operations on pictures and on vectors: what is before and behind the feature maps.

    These are the smoothing with what prepares the picture, the first convolution, the head with the
    calibration, and the domain guard.
    """
    return [
        operation.get_friendly_name()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in ("Constant", "Parameter", "Result")
        and not (
            _is_feature_map(operation.output(0))
            and (operation.get_type_name() != "Convolution" or _is_feature_map(operation.input_value(0)))
        )
    ]


def _is_feature_map(output: openvino.Output) -> bool:
    shape = output.get_partial_shape()
    is_map = shape.rank.is_static and shape.rank.get_length() == 4
    return is_map and (shape[1].is_dynamic or shape[1].get_length() > PICTURE_CHANNELS)


def _guard_input(model: openvino.Model) -> openvino.Input:
    """Where the domain guard's features, standardised, are whitened."""
    node = model.output("domain").get_node()
    while node.get_type_name() != "MatMul":
        inputs = (value.get_node() for value in node.input_values())
        node = next(each for each in inputs if each.get_type_name() != "Constant")
    return node.input(0)


def _guard_outputs(model: openvino.Model, images: np.ndarray) -> list[np.ndarray]:
    """The guard's features float32 [N, D] and the domain scores float32 [N] of the images."""
    model = model.clone()
    features = model.add_outputs([_guard_input(model).get_source_output()])[0]
    return _outputs(model, images, model.outputs.index(features), "domain")


def domain_scores(model: openvino.Model, images: np.ndarray) -> np.ndarray:
    """The domain scores float32 [N] of the images."""
    return _outputs(model, images, "domain")[0]


def _outputs(model: openvino.Model, images: np.ndarray, *outputs: int | str) -> list[np.ndarray]:
    """These outputs of the model for the images."""
    compiled = openvino.compile_model(model, "CPU", EXACT)
    batches: list[list[np.ndarray]] = []
    for start in range(0, len(images), _BATCH):
        result = compiled(images[start : start + _BATCH])
        batches.append([result[output].copy() for output in outputs])
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _fit_guard(model: openvino.Model, features: np.ndarray, quantized: np.ndarray) -> None:
    """Give each of the guard's features the mean and the deviation that it has in float32.

    Whitening enlarges the smallest differences, so that rounding alone would look like another domain.
    """
    scale = features.std(axis=0) / np.maximum(quantized.std(axis=0), _LEAST_DEVIATION)
    offset = features.mean(axis=0) - quantized.mean(axis=0) * scale
    whitened = _guard_input(model)
    scaled = opset.multiply(whitened.get_source_output(), scale[None].astype(np.float32))
    shifted = opset.add(scaled, offset[None].astype(np.float32))
    whitened.replace_source_output(shifted.output(0))


def fit_domain_scores(model: openvino.Model, scores: np.ndarray, quantized: np.ndarray) -> None:
    """Bring the domain scores back to those in float32, by a line through the squares of both.

    A score is a mean of squares, to which rounding adds about as much for every image.
    """
    slope, offset = np.polyfit(np.square(quantized), np.square(scores), 1)
    result = model.output("domain").get_node()
    score = result.input_value(0)
    squared = opset.multiply(opset.multiply(score, score), np.float32(slope))
    positive = opset.relu(opset.add(squared, np.float32(offset)))
    corrected = opset.sqrt(positive).output(0)
    names = score.get_tensor().get_names()
    score.get_tensor().set_names(set())
    corrected.get_tensor().set_names(names)
    result.input(0).replace_source_output(corrected)


def _closeness(
    network: openvino.CompiledModel, items: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, list[float]]:
    """How near the probabilities are to those of the float32 network, 1 where equal; also of each image."""
    near = [1.0 - float(np.abs(network(image)["probabilities"] - p).max()) for image, p in items]
    return float(np.mean(near)), near
