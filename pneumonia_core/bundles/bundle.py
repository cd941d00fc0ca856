"""A bundle: one folder with all that scoring needs, written once, verified whenever it is opened."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from pneumonia_core.bundles.engines import Engine, EngineReport, open_exported
from pneumonia_core.domain import Domain
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import CLASSES, Thresholds
from pneumonia_core.imaging.contract import FILTER, GEOMETRY, JPEG_QUALITY, SMOOTHING
from pneumonia_core.system.environment import cpu_has_bfloat16

FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class ModelSpec:
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
    facts: ModelSpec
    engines: dict[str, EngineReport]
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
        facts=ModelSpec(
            network=document["network"],
            image_size=document["image"]["size"],
            thresholds=Thresholds(**document["thresholds"]),
            temperature=document["temperature"],
            data_fingerprint=document["data_fingerprint"],
            training=document["training"],
            domain=_parse_domain(document.get("domain")),
        ),
        engines={
            name: EngineReport(**{k: v for k, v in entry.items() if k != "parity_passed"})
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


def compute_model_id(model: Any, facts: ModelSpec) -> str:
    """The first 16 hex digits of a SHA-256 over the weights and all else that changes a score or finding."""
    digest = hashlib.sha256()
    settings = {
        "format": FORMAT_VERSION,
        "classes": CLASSES,
        "network": facts.network,
        "image": [facts.image_size, GEOMETRY, FILTER, JPEG_QUALITY, SMOOTHING],
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
    return {"size": image_size, "geometry": GEOMETRY, "filter": FILTER, "jpeg_quality": JPEG_QUALITY}


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


def load_engine(
    bundle: "Bundle",
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    gpu: bool = False,
) -> Engine:
    """The bundle's engine of that name, ready to score.

    `auto` is chosen by `choose_engine`.
    Precision `auto` is what parity was measured with, where this machine has it. `threads` bounds the
    CPU threads. Raises InvalidInput when the bundle lacks the engine.
    """
    name = choose_engine(bundle, name, gpu)
    chosen = bundle.engines[name].precision if precision == "auto" else precision
    if gpu and name == "tensorflow" and precision == "auto":
        chosen = "float16"
    if chosen == "bfloat16" and not cpu_has_bfloat16():
        chosen = "float32"
    return open_exported(bundle.path, name, chosen, bundle.image_size, threads or os.cpu_count() or 1)


def choose_engine(bundle: "Bundle", name: str = "auto", gpu: bool = False) -> str:
    """The name of the engine that `name` means for this bundle.

    `auto` is, of the engines whose parity passed, TensorFlow where `gpu` is true, which alone computes there, otherwise
    or without it the fastest. Raises InvalidInput when the bundle lacks the engine or none passed.
    """
    if name != "auto":
        if name not in bundle.engines:
            raise InvalidInput(
                f"the bundle {bundle.path} has no engine {name!r}; it has {', '.join(sorted(bundle.engines))}."
            )
        return name
    passed = {n: facts for n, facts in bundle.engines.items() if facts.parity_passed}
    if not passed:
        raise InvalidInput(
            f"no engine of the bundle {bundle.path} agreed with its float32 model when it was written. "
            "Name one with --engine to use it all the same."
        )
    if gpu and "tensorflow" in passed:
        return "tensorflow"
    return max(passed, key=lambda n: passed[n].images_per_s)


def _missing(folder: Path, name: str) -> InvalidInput:
    return InvalidInput(f"{folder}: the bundle's file {name} is missing. Restore the whole folder.")
