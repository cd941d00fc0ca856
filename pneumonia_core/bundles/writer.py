"""Writing a bundle: export to every engine, parity, baseline, manifest."""

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pneumonia_core.bundles.baseline import BASELINE, write_baseline
from pneumonia_core.bundles.bundle import (
    FORMAT_VERSION,
    Bundle,
    ModelSpec,
    compute_model_id,
    image_preparation,
    open_bundle,
)
from pneumonia_core.bundles.engines import ENGINES, INT8_ENGINE, EngineReport, Reports, best_report
from pneumonia_core.bundles.openvino_runtime.export import export_openvino
from pneumonia_core.bundles.openvino_runtime.quantization import quantize_engine
from pneumonia_core.bundles.parity import ParityImages, measure_engine, predict
from pneumonia_core.bundles.tensorflow_runtime.engine import set_graph_precision
from pneumonia_core.bundles.tensorflow_runtime.float16 import export_float16
from pneumonia_core.findings import CLASSES
from pneumonia_core.system.environment import installed_versions


def write_bundle(
    models_dir: Path,
    model: keras.Model,
    spec: ModelSpec,
    parity_images: ParityImages,
    baseline: np.ndarray,
    documents: Mapping[str, str | bytes],
    calibration: np.ndarray | None = None,
    float16: bool = False,
) -> Bundle:
    """Write a new bundle under `models_dir` and open it.

    `model` is the float32 Keras scoring model: uint8 [B, H, W] to {"probabilities": [B, 3]} and, where `spec`
    has a domain, {"domain": [B]}. Each engine's parity is measured on `parity_images`. `baseline` float32 [N,
    3] are the probabilities of the validation images. `documents` are further files, {name: content}. With
    training images `calibration` uint8 [N, H, W] there is the engine INT8_ENGINE too (`quantize_engine`).
    With `float16` TensorFlow also computes in float16 on GPUs.
    """
    with writing_folder(models_dir) as folder:
        model.save(folder / "model.keras")
        model.export(str(folder / "saved_model"), format="tf_saved_model", verbose=False)
        if float16:
            export_float16(model, folder)
        (folder / "openvino").mkdir()
        export_openvino(model, folder / "openvino" / "model.xml")
        write_baseline(folder / BASELINE, baseline)
        for name, content in documents.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        reference = predict(model, parity_images.images)

        def report(name: str) -> Reports:
            return measure_engine(folder, name, spec.thresholds, spec.domain, parity_images, reference)

        reports = {name: report(name) for name in ENGINES}
        made: dict[str, object] = {}
        if calibration is not None:
            made, reports[INT8_ENGINE] = quantize_engine(folder, calibration, lambda: report(INT8_ENGINE))
        # The TensorFlow engine has switched this process to its own precision.
        set_graph_precision("float32")
        document = {**_document(compute_model_id(model, spec), spec), **made}
        return publish(folder, models_dir, with_engines(document, reports))


@contextlib.contextmanager
def writing_folder(models_dir: Path) -> Iterator[Path]:
    """A new folder under `models_dir` to write a bundle in; it goes unless it is published."""
    models_dir.mkdir(parents=True, exist_ok=True)
    folder = models_dir / f".writing-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, models_dir: Path, document: Mapping[str, Any]) -> Bundle:
    """Write bundle.json with this content and the files' hashes, give the folder its name, and open it."""
    files = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    content = json.dumps({**document, "files": files}, indent=2)
    (folder / "bundle.json").write_text(f"{content}\n", encoding="utf-8")
    final = _free_name(models_dir, f"{document['network']}-{document['model_id']}")
    folder.rename(final)
    return open_bundle(final)


def with_engines(
    document: Mapping[str, Any], reports: Mapping[str, Mapping[str, EngineReport]]
) -> dict[str, Any]:
    """The content of bundle.json with these engines too: {engine: {precision: report}}.

    All reports are under `precisions`. Version 0.1.0 reads `engines`: one entry for each of the engines that
    it knows, without the keys that it does not know.
    """
    engines, precisions = dict(document.get("engines", {})), dict(document.get("precisions", {}))
    for name, each in reports.items():
        precisions[name] = {precision: _entry(report) for precision, report in each.items()}
        if name in ENGINES:
            engines[name] = _entry(best_report(each))
            del engines[name]["auroc_bacterial_difference"]
    return {**document, "engines": engines, "precisions": precisions}


def _entry(report: EngineReport) -> dict[str, Any]:
    return {**asdict(report), "parity_passed": report.parity_passed}


def _document(model_id: str, spec: ModelSpec) -> dict[str, Any]:
    """The content of bundle.json but for the engines and the files."""
    return {
        "format_version": FORMAT_VERSION,
        "model_id": model_id,
        "classes": list(CLASSES),
        "network": spec.network,
        "image": image_preparation(spec.image_size),
        "thresholds": asdict(spec.thresholds),
        # Version 0.1.0 requires it. The graph computes the calibration.
        "temperature": 1.0,
        "calibration": asdict(spec.calibration) if spec.calibration else None,
        "members": spec.members,
        "mirror": spec.mirror,
        "smoothing": spec.smoothing,
        "conformal": asdict(spec.conformal) if spec.conformal else None,
        "domain": asdict(spec.domain) if spec.domain else None,
        "data_fingerprint": spec.data_fingerprint,
        "training": spec.training,
        "versions": installed_versions(),
    }


def read_files(bundle: Bundle) -> dict[str, bytes]:
    """All files of a bundle, {name: content}, for `write_files` on another machine."""
    files = (file for file in sorted(bundle.path.rglob("*")) if file.is_file())
    return {file.relative_to(bundle.path).as_posix(): file.read_bytes() for file in files}


def write_files(models_dir: Path, name: str, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle of these files under `models_dir`, by this name or, where it is taken, a similar one."""
    with writing_folder(models_dir) as folder:
        for relative, content in files.items():
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / relative).write_bytes(content)
        final = _free_name(models_dir, name)
        folder.rename(final)
    return open_bundle(final)


def _free_name(models_dir: Path, name: str) -> Path:
    """A folder name that is free: the same training twice gives the same model_id."""
    path, number = models_dir / name, 2
    while path.exists():
        path, number = models_dir / f"{name}-{number}", number + 1
    return path
