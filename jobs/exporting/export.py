"""A new bundle with one more engine: images decoded, the network quantised, parity measured."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.evaluate import output_folder
from jobs.training.images import report_left_out
from pneumonia_core.bundles.bundle import Bundle, open_bundle, read_keras_model
from pneumonia_core.bundles.choice import choose_engine
from pneumonia_core.bundles.engines import MAX_AUROC_DIFFERENCE, MIN_DOMAIN_AGREEMENT, MIN_FINDINGS_AGREEMENT
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.quantization import CALIBRATION_IMAGES, check_can_add, check_quantization
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.evaluation.robustness import balanced_sample
from pneumonia_core.scoring.isolation import decode_all

# All images that are held back from a data set such as Kermany's; of a larger one, so many.
MAX_HELD_BACK: Final = 2048


@dataclass(frozen=True)
class ExportOptions:
    """The options of `pneumonia export`."""

    bundle: str
    engine: str
    data: str
    models: str


def export_engine(options: ExportOptions) -> Result:
    """Write the bundle as the command does. Raises InvalidInput where the engine cannot be made here."""
    check_quantization()
    bundle = open_bundle(options.bundle)
    check_can_add(bundle)
    training, held_back = split_training(read_labelled(options.data))
    models = output_folder(options.models)
    validation, contents = _decode(
        _some(held_back, MAX_HELD_BACK), bundle.image_size, "held-back", frozenset()
    )
    calibration, _ = _decode(_some(training, CALIBRATION_IMAGES), bundle.image_size, "calibration", contents)
    say(f"quantising on {len(calibration.labels)} images: this takes minutes")
    # TensorFlow takes seconds to import: a command that is refused does without it.
    from pneumonia_core.bundles.extension import add_int8_engine
    from pneumonia_core.networks.scoring_model import load_scoring_model

    model = load_scoring_model(read_keras_model(bundle))
    extended = add_int8_engine(models, bundle, model, calibration.images, validation)
    return _report(extended, options.engine, len(calibration.labels), len(validation.labels))


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
    pixels, kept_labels, contents = zip(*kept, strict=True)
    return ParityImages(np.stack(pixels), np.array(kept_labels)), frozenset(contents)


def _report(bundle: Bundle, engine: str, calibrated_on: int, held_back: int) -> Result:
    report = bundle.engines[engine]
    kind, domain = report.auroc_bacterial_difference, report.domain_agreement
    say(
        f"{engine} and the float32 network on {held_back:,} held-back images: AUROC of pneumonia differs by "
        f"{report.auroc_difference:.4f}"
        + ("" if kind is None else f", of bacterial or viral by {kind:.4f}")
        + f"; findings agree on {report.findings_agreement:.2%}"
        + ("" if domain is None else f", in_domain on {domain:.2%}")
        + f"; a probability differs by up to {report.largest_difference:.3f}"
    )
    rates = ", ".join(f"{name} {each.images_per_s:,.1f}" for name, each in sorted(bundle.engines.items()))
    say(f"images/s, each when it was added to the bundle: {rates}")
    taken = report.parity_passed and choose_engine(bundle) == engine
    if not report.parity_passed:
        say(
            f"{engine} did not pass, so `score --engine auto` will not take it: AUROC may differ by "
            f"{MAX_AUROC_DIFFERENCE}, findings must agree on {MIN_FINDINGS_AGREEMENT:.1%} and in_domain on "
            f"{MIN_DOMAIN_AGREEMENT:.0%}"
        )
    elif taken:
        say(f"{engine} passed: `score --engine auto` takes it where every CPU multiplies int8")
    else:
        say(f"{engine} passed: `score --engine auto` takes {choose_engine(bundle)}, which was faster")
    say(f"bundle {bundle.path}")
    return {
        "state": "done",
        "bundle": str(bundle.path),
        "model_id": bundle.model_id,
        "engine": engine,
        **asdict(report),
        "parity_passed": report.parity_passed,
        "auto": taken,
        "calibration_images": calibrated_on,
        "held_back_images": held_back,
    }
