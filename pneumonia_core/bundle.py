"""A bundle: one folder with all that scoring needs, written once, verified whenever it is opened."""

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.domain import Domain
from pneumonia_core.engines import ENGINES
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import Thresholds
from pneumonia_core.images import ENCODING, FILTER, GEOMETRY, SMOOTHING
from pneumonia_core.labels import CLASSES
from pneumonia_core.parity import EngineFacts, measure_engine, predict
from pneumonia_core.versions import installed_versions

FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class ModelFacts:
    """What a trained network is, besides its weights. `training` is free JSON for the reader; `domain` is
    None where it does not say what is unlike its training data."""

    network: str
    image_size: int
    thresholds: Thresholds
    temperature: float
    data_fingerprint: str
    training: dict[str, Any] = field(default_factory=dict)
    domain: Domain | None = None


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, its hashes checked."""

    path: Path
    model_id: str
    facts: ModelFacts
    engines: dict[str, EngineFacts]
    document: dict[str, Any]

    @property
    def image_size(self) -> int:
        return self.facts.image_size

    @property
    def thresholds(self) -> Thresholds:
        return self.facts.thresholds

    @property
    def domain(self) -> Domain | None:
        return self.facts.domain


def open_bundle(path: str | Path, only: frozenset[str] | None = None) -> Bundle:
    """The bundle in a folder, after checking the hash of every file (or of those named in `only`).

    `PATH@sha256:HEX` also pins the hash of bundle.json itself. Raises InvalidInput when it is no bundle,
    is incomplete or was changed.
    """
    folder, pin = _split_pin(str(path))
    text = _read_manifest(folder)
    actual = hashlib.sha256(text).hexdigest()
    if pin is not None and pin != actual:
        raise InvalidInput(
            f"{folder}: bundle.json has sha256 {actual}, not the pinned {pin}. "
            "It is another bundle than the one you named, or it was changed."
        )
    document = _parse_manifest(folder, text)
    for name, expected in document["files"].items():
        if only is None or name in only:
            _check_file(folder, name, expected)
    return Bundle(
        # An alias may lead to another bundle before all of this one is read.
        path=folder.resolve(),
        model_id=document["model_id"],
        facts=ModelFacts(
            network=document["network"],
            image_size=document["image"]["size"],
            thresholds=Thresholds(**document["thresholds"]),
            temperature=document["temperature"],
            data_fingerprint=document["data_fingerprint"],
            training=document["training"],
            domain=_parse_domain(document.get("domain")),
        ),
        engines={
            name: EngineFacts(**{k: v for k, v in entry.items() if k != "parity_passed"})
            for name, entry in document["engines"].items()
        },
        document=document,
    )


def read_engine_files(bundle: Bundle, engine: str) -> dict[str, bytes]:
    """A bundle that has what this engine needs and no more: its files by their paths, as they were when the bundle was
    opened. Raises InvalidInput where one has changed since."""
    folder = "saved_model/" if engine == "tensorflow" else "openvino/"
    # Not the manifest in the folder: another bundle may lie there by now.
    files = {"bundle.json": json.dumps(bundle.document).encode()}
    for name, expected in bundle.document["files"].items():
        if name.startswith(folder):
            files[name] = _read_file(bundle.path, name)
            _check_hash(bundle.path, name, hashlib.sha256(files[name]).hexdigest(), expected)
    return files


def write_bundle(
    models_dir: Path,
    model: Any,
    facts: ModelFacts,
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


def compute_model_id(model: Any, facts: ModelFacts) -> str:
    """The first 16 hex digits of a SHA-256 over the weights and all else that changes a score or finding."""
    digest = hashlib.sha256()
    settings = {
        "format": FORMAT_VERSION,
        "classes": CLASSES,
        "network": facts.network,
        "image": [facts.image_size, GEOMETRY, FILTER, ENCODING, SMOOTHING],
        "thresholds": asdict(facts.thresholds),
        "temperature": facts.temperature,
        **({"domain": asdict(facts.domain)} if facts.domain else {}),
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for weight in model.weights:
        values = np.ascontiguousarray(weight.numpy())
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:16]


def _split_pin(path: str) -> tuple[Path, str | None]:
    folder, found, pin = path.partition("@sha256:")
    return Path(folder), pin.lower() if found else None


def _read_manifest(folder: Path) -> bytes:
    try:
        return (folder / "bundle.json").read_bytes()
    except OSError as error:
        what = "no such folder" if not folder.exists() else "it is no bundle: it has no readable bundle.json"
        raise InvalidInput(
            f"{folder}: {what}. Give a folder that `pneumonia train` wrote (it prints its name)."
        ) from error


def _parse_manifest(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
        version = document["format_version"]
        document["files"], document["model_id"], document["engines"], document["image"]["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{folder}/bundle.json is not what `pneumonia train` writes. Restore it."
        ) from error
    if version != FORMAT_VERSION:
        raise InvalidInput(
            f"{folder}: bundle format {version}, this version reads {FORMAT_VERSION}. "
            "Use the version of pneumonia-scoring that wrote it, or train again."
        )
    prepared = _preparation(document["image"]["size"])
    if document["image"] != prepared:
        raise InvalidInput(
            f"{folder}: its network was trained on images prepared as {json.dumps(document['image'])}, this version "
            f"prepares them as {json.dumps(prepared)}. Use the version of pneumonia-scoring that wrote it, or train again."
        )
    return dict(document)


def _preparation(image_size: int) -> dict[str, Any]:
    """How an image becomes what the network sees, as a bundle tells it."""
    return {"size": image_size, "geometry": GEOMETRY, "filter": FILTER, "jpeg_quality": ENCODING}


def _check_file(folder: Path, name: str, expected: str) -> None:
    try:
        with (folder / name).open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _missing(folder, name) from error
    _check_hash(folder, name, actual, expected)


def _read_file(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _missing(folder, name) from error


def _missing(folder: Path, name: str) -> InvalidInput:
    return InvalidInput(f"{folder}: the bundle's file {name} is missing. Restore the whole folder.")


def _check_hash(folder: Path, name: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise InvalidInput(
            f"{folder}: the file {name} is not the one the bundle was written with (its sha256 differs). "
            "It is damaged or was changed: restore the folder, or train again."
        )


def _parse_domain(written: dict[str, Any] | None) -> Domain | None:
    """Bundles of earlier versions have none."""
    if written is None:
        return None
    ages = written["ages_years"]
    return Domain(written["threshold"], (ages[0], ages[1]) if ages else None)


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


def _write_manifest(folder: Path, model_id: str, facts: ModelFacts, engines: dict[str, EngineFacts]) -> None:
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
