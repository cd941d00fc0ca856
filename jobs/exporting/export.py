"""A new bundle with one more engine: images decoded, the network converted, parity measured."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.evaluate import output_folder
from jobs.training.images import report_left_out
from pneumonia_core.bundles.bundle import Bundle, open_bundle, read_keras_model
from pneumonia_core.bundles.choice import check_can_add
from pneumonia_core.bundles.engines import (
    FLOAT16_GRAPH,
    INT8_ENGINE,
    MAX_AUROC_DIFFERENCE,
    MIN_DOMAIN_AGREEMENT,
    MIN_FINDINGS_AGREEMENT,
    ONNX_ENGINE,
    EngineReport,
    Reports,
    best_report,
    passed_precisions,
)
from pneumonia_core.bundles.onnx_runtime.installed import check_onnx_export
from pneumonia_core.bundles.openvino_runtime.quantization import CALIBRATION_IMAGES, check_quantization
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.evaluation.robustness import balanced_sample
from pneumonia_core.scoring.isolation import decode_all

# All images that are held back from a data set such as Kermany's; of a larger one, so many.
MAX_HELD_BACK: Final = 2048
# What a machine must have to make an engine. TensorFlow is always there.
_CHECKS: Final = {INT8_ENGINE: check_quantization, ONNX_ENGINE: check_onnx_export}
# Where `auto` takes an engine that passed.
_WHERE: Final = {
    INT8_ENGINE: "every CPU multiplies int8",
    ONNX_ENGINE: "every node has ONNX Runtime",
    FLOAT16_GRAPH: "every GPU multiplies float16",
}


@dataclass(frozen=True)
class ExportOptions:
    """The options of `pneumonia export`."""

    bundle: str
    engine: str
    data: str
    models: str


def export_engine(options: ExportOptions) -> Result:
    """Write the bundle as the command does. Raises InvalidInput where the engine cannot be made here."""
    if options.engine in _CHECKS:
        _CHECKS[options.engine]()
    bundle = open_bundle(options.bundle)
    check_can_add(bundle, options.engine)
    training, held_back = split_training(read_labelled(options.data))
    models = output_folder(options.models)
    validation, contents = _decode(
        _some(held_back, MAX_HELD_BACK), bundle.image_size, "held-back", frozenset()
    )
    wanted = _some(training, CALIBRATION_IMAGES) if options.engine == INT8_ENGINE else []
    calibration, _ = _decode(wanted, bundle.image_size, "calibration", contents)
    extended = _add(models, bundle, options.engine, calibration.images, validation)
    return _report(extended, options.engine, len(calibration.labels), len(validation.labels))


def _add(
    models: Path, bundle: Bundle, engine: str, calibration: np.ndarray, held_back: ParityImages
) -> Bundle:
    """The new bundle; `calibration` uint8 [N, H, W] are used where the engine is calibrated."""
    # TensorFlow takes seconds to import: a command that is refused does without it.
    from pneumonia_core.bundles.extension import add_float16, add_int8_engine, add_onnx_engine
    from pneumonia_core.bundles.tensorflow_runtime.engine import hide_gpus
    from pneumonia_core.networks.scoring_model import load_scoring_model

    hide_gpus()
    model = load_scoring_model(read_keras_model(bundle))
    if engine == INT8_ENGINE:
        say(
            f"quantising on {len(calibration)} images: a minute, or up to half an hour where much of a large "
            "network must stay in float32"
        )
        return add_int8_engine(models, bundle, model, calibration, held_back)
    form, add = {
        ONNX_ENGINE: ("as ONNX", add_onnx_engine),
        FLOAT16_GRAPH: ("in float16", add_float16),
    }[engine]
    say(f"writing the network {form}, and comparing it on {len(held_back.labels):,} held-back images")
    return add(models, bundle, model, held_back)


def _some(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """All images, or a balanced sample of them."""
    if len(images) <= count:
        return list(images)
    return [images[number] for number in balanced_sample([image.label for image in images], count)]


def _decode(
    images: Sequence[LabelledImage], size: int, name: str, in_validation: frozenset[str]
) -> tuple[ParityImages, frozenset[str]]:
    """The images that can be read and whose SHA-256 is not `in_validation`, and the SHA-256 of these."""
    threads = len(os.sched_getaffinity(0))
    decoded = decode_all([image.ref for image in images], size, threads=threads, isolated=False)
    labels = [image.label for image in images]
    reasons = [each.rejection.reason if each.rejection else "" for each in decoded]
    copies = [each.pixels is not None and each.source.sha256 in in_validation for each in decoded]
    if any(reasons) or any(copies):
        report_left_out(labels, reasons, copies, name)
    kept = [
        (each.pixels, label, each.source.sha256)
        for each, label, copy in zip(decoded, labels, copies, strict=True)
        if each.pixels is not None and not copy
    ]
    pixels = np.array([each for each, _, _ in kept], np.uint8).reshape(-1, size, size)
    contents = frozenset(sha256 for _, _, sha256 in kept if sha256)
    return ParityImages(pixels, np.array([label for _, label, _ in kept], int)), contents


def _report(bundle: Bundle, engine: str, calibrated_on: int, held_back: int) -> Result:
    name, added = _added(bundle, engine)
    report = best_report(added)
    for each in added.values():
        say(f"{name} in {each.precision}, on {held_back:,} held-back images: {_differences(each)}")
    rates = ", ".join(f"{name} {each.images_per_s:,.1f}" for name, each in sorted(bundle.engines.items()))
    say(f"images/s, each when it was added to the bundle: {rates}")
    if not report.parity_passed:
        say(
            f"{engine} did not pass, so `score --engine auto` will not take it: AUROC may differ by "
            f"{MAX_AUROC_DIFFERENCE}, findings must agree on {MIN_FINDINGS_AGREEMENT:.1%} and in_domain on "
            f"{MIN_DOMAIN_AGREEMENT:.0%}"
        )
    else:
        say(f"{engine} passed: `score --engine auto` takes it where {_WHERE[engine]} and it is fastest")
    if "float16" in added:
        passed = "float16" in passed_precisions(added)
        say(f"on GPUs {name} computes in {'float16, in which it passed' if passed else 'float32'}")
    say(f"bundle {bundle.path}")
    return {
        "state": "done",
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "engine": engine,
        **asdict(report),
        "parity_passed": report.parity_passed,
        "calibration_images": calibrated_on,
        "held_back_images": held_back,
        "passed_in": list(passed_precisions(added)),
    }


def _added(bundle: Bundle, engine: str) -> tuple[str, Reports]:
    """The name by which the bundle has what was added, and the reports of that."""
    if engine == FLOAT16_GRAPH:
        return "tensorflow", {"float16": bundle.reports["tensorflow"]["float16"]}
    return engine, bundle.reports[engine]


def _differences(report: EngineReport) -> str:
    """How far the engine is from the float32 network, in words."""
    kind, domain = report.auroc_bacterial_difference, report.domain_agreement
    return (
        f"AUROC of pneumonia differs from the float32 network's by {report.auroc_difference:.4f}"
        + ("" if kind is None else f", of bacterial or viral by {kind:.4f}")
        + f"; findings agree on {report.findings_agreement:.2%}"
        + ("" if domain is None else f", in_domain on {domain:.2%}")
        + f"; a probability differs by up to {report.largest_difference:.3f}"
    )
