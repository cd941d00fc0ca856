"""Writing a bundle: export to every engine, parity, baseline, manifest."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import (
    FORMAT_VERSION,
    Bundle,
    ModelSpec,
    compute_model_id,
    image_preparation,
    open_bundle,
)
from pneumonia_core.bundles.engines import ENGINES, EngineReport
from pneumonia_core.bundles.parity import ParityImages, measure_engine, predict
from pneumonia_core.bundles.tensorflow_engine import set_graph_precision
from pneumonia_core.findings import CLASSES
from pneumonia_core.system.environment import installed_versions


def write_bundle(
    models_dir: Path,
    model: keras.Model,
    spec: ModelSpec,
    parity_images: ParityImages,
    baseline: np.ndarray,
    documents: Mapping[str, str | bytes],
) -> Bundle:
    """Write a new bundle under `models_dir` and open it.

    `model` is the float32 Keras scoring model: uint8 [B, H, W] to {"probabilities": [B, 3]} and, where `spec`
    has a domain, {"domain": [B]}. Each engine's parity is measured on `parity_images`. `baseline` float32 [N,
    3] are the probabilities of the validation images. `documents` are further files, {name: content}.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    folder = models_dir / f".writing-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        model.save(folder / "model.keras")
        model.export(str(folder / "saved_model"), format="tf_saved_model", verbose=False)
        (folder / "openvino").mkdir()
        model.export(str(folder / "openvino" / "model.xml"), format="openvino", verbose=False)
        _write_baseline(folder / "baseline.parquet", baseline)
        for name, content in documents.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        reference = predict(model, parity_images.images)
        engines = {
            name: measure_engine(folder, name, spec.thresholds, spec.domain, parity_images, reference)
            for name in ENGINES
        }
        # The TensorFlow engine has switched this process to its own precision.
        set_graph_precision("float32")
        model_id = compute_model_id(model, spec)
        _write_manifest(folder, model_id, spec, engines)
        final = _free_name(models_dir, f"{spec.network}-{model_id}")
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return open_bundle(final)


def _write_baseline(path: Path, baseline: np.ndarray) -> None:
    """Write histograms of the validation scores, 50 equal bins from 0 to 1: the baseline for drift."""
    edges = np.linspace(0.0, 1.0, 51)
    columns = dict(zip([f"p_{name}" for name in CLASSES], baseline.T, strict=True))
    columns["p_pneumonia"] = 1.0 - columns["p_normal"]
    tables = [
        pa.table(
            {
                "score": [name] * 50,
                "bin_left": edges[:-1],
                "bin_right": edges[1:],
                "images": np.histogram(np.clip(values, 0, 1), edges)[0],
            }
        )
        for name, values in columns.items()
    ]
    pq.write_table(pa.concat_tables(tables), path)


def _write_manifest(folder: Path, model_id: str, spec: ModelSpec, engines: dict[str, EngineReport]) -> None:
    files = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    document = {
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
        "engines": {
            name: {**asdict(report), "parity_passed": report.parity_passed}
            for name, report in engines.items()
        },
        "data_fingerprint": spec.data_fingerprint,
        "training": spec.training,
        "versions": installed_versions(),
        "files": files,
    }
    (folder / "bundle.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _free_name(models_dir: Path, name: str) -> Path:
    """A folder name that is free: the same training twice gives the same model_id."""
    path, number = models_dir / name, 2
    while path.exists():
        path, number = models_dir / f"{name}-{number}", number + 1
    return path
