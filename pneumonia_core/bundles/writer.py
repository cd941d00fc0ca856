"""A bundle: one folder with all that scoring needs, written once, verified whenever it is opened."""

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import (
    FORMAT_VERSION,
    Bundle,
    ModelSpec,
    _preparation,
    compute_model_id,
    open_bundle,
)
from pneumonia_core.bundles.engines import ENGINES, EngineReport
from pneumonia_core.bundles.parity import measure_engine, predict
from pneumonia_core.findings import CLASSES
from pneumonia_core.system.environment import installed_versions


def write_bundle(
    models_dir: Path,
    model: Any,
    facts: ModelSpec,
    parity_images: np.ndarray,
    parity_labels: np.ndarray,
    baseline: np.ndarray,
    documents: dict[str, str],
) -> Bundle:
    """Write a new bundle under `models_dir` and open it.

    `model` is the float32 Keras scoring model, uint8 [B, H, W] to {"probabilities": [B, 3]} and, where
    `facts` have a domain, {"domain": [B]}. Parity of each engine is measured on the held-back `parity_images` uint8 [N, H, W]
    with their `parity_labels` int [N]. `baseline` float32 [N, 3] are the probabilities on validation.
    `documents` are further text files by name.
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
        for name, text in documents.items():
            (folder / name).write_text(text, encoding="utf-8")
        reference = predict(model, parity_images)
        compared = (facts.thresholds, facts.domain, parity_images, parity_labels, reference)
        engines = {name: measure_engine(folder, name, *compared) for name in ENGINES}
        model_id = compute_model_id(model, facts)
        _write_manifest(folder, model_id, facts, engines)
        final = _free_name(models_dir, f"{facts.network}-{model_id}")
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return open_bundle(final)


def _write_baseline(path: Path, baseline: np.ndarray) -> None:
    """Histograms of the scores on validation, 50 equal bins from 0 to 1, to see drift against."""
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


def _write_manifest(folder: Path, model_id: str, facts: ModelSpec, engines: dict[str, EngineReport]) -> None:
    files = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    document = {
        "format_version": FORMAT_VERSION,
        "model_id": model_id,
        "classes": list(CLASSES),
        "network": facts.network,
        "image": _preparation(facts.image_size),
        "thresholds": asdict(facts.thresholds),
        "temperature": facts.temperature,
        "domain": asdict(facts.domain) if facts.domain else None,
        "engines": {
            name: {**asdict(entry), "parity_passed": entry.parity_passed} for name, entry in engines.items()
        },
        "data_fingerprint": facts.data_fingerprint,
        "training": facts.training,
        "versions": installed_versions(),
        "files": files,
    }
    (folder / "bundle.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _free_name(models_dir: Path, name: str) -> Path:
    """A folder name not yet taken: the same training twice gives the same model_id."""
    path, number = models_dir / name, 2
    while path.exists():
        path, number = models_dir / f"{name}-{number}", number + 1
    return path
