"""A bundle: one folder with everything that scoring needs, verified whenever it is opened."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pneumonia_core.bundles.engines import EngineReport, best_report, files_prefix
from pneumonia_core.calibration import Calibration
from pneumonia_core.domain import Domain
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import CLASSES, Conformal, Thresholds
from pneumonia_core.imaging.contract import FILTER, GEOMETRY, JPEG_QUALITY, SMOOTHING

if TYPE_CHECKING:
    # Scoring opens bundles without Keras.
    import keras

FORMAT_VERSION: Final = 1
KERAS_MODEL: Final = "model.keras"
_HASHED_AT_ONCE: Final = 4  # or fewer: one core is left to what is done beside
_PIECE_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class ModelSpec:
    """A trained network without its weights.

    `training` is free JSON for a reader. `domain` is None where the network has no domain guard. The exported
    graph computes the `calibration`; it is None in bundles of version 0.1.0, which have another kind.
    `members` is the number of networks in the graph, `mirror` whether it also scores the mirrored image.
    `conformal` is None where there are no findings sets, as in bundles of version 0.1.0. `smoothing` is that
    of `prefilter.smooth`.
    """

    network: str
    image_size: int
    thresholds: Thresholds
    data_fingerprint: str
    training: dict[str, Any] = field(default_factory=dict)
    domain: Domain | None = None
    calibration: Calibration | None = None
    members: int = 1
    mirror: bool = False
    conformal: Conformal | None = None
    smoothing: float = SMOOTHING


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose hashes were checked.

    `reports` are those of each engine by precision. `document` is the bundle.json.
    """

    path: Path
    model_id: str
    spec: ModelSpec
    reports: dict[str, dict[str, EngineReport]]
    document: dict[str, Any]

    @property
    def engines(self) -> dict[str, EngineReport]:
        """The engines, each with its best report, in the order of their names."""
        return {name: best_report(reports) for name, reports in sorted(self.reports.items())}

    @property
    def image_size(self) -> int:
        return self.spec.image_size

    @property
    def thresholds(self) -> Thresholds:
        return self.spec.thresholds

    @property
    def domain(self) -> Domain | None:
        return self.spec.domain


def open_bundle(path: str | Path, only: frozenset[str] | None = None) -> Bundle:
    """The bundle in a folder, after a check of the hash of every file, or of those named in `only`.

    `PATH@sha256:HEX` also pins the hash of bundle.json. Raises InvalidInput when the folder is not a bundle,
    is incomplete, was changed, or names a file outside it.
    """
    named, pin = _split_pin(str(path))
    # An alias may point to another bundle before all files of this one are read.
    folder = named.resolve()
    text = _read_manifest(folder)
    actual = hashlib.sha256(text).hexdigest()
    if pin is not None and pin != actual:
        raise InvalidInput(
            f"{folder}: bundle.json has sha256 {actual}, not the pinned {pin}. "
            "The folder holds another bundle, or bundle.json was changed."
        )
    document = _parse_manifest(folder, text)
    files: dict[str, str] = document["files"]
    _check_files(folder, {name: files[name] for name in files if only is None or name in only})
    return Bundle(
        path=folder,
        model_id=document["model_id"],
        spec=ModelSpec(
            network=document["network"],
            image_size=document["image"]["size"],
            thresholds=Thresholds(**document["thresholds"]),
            data_fingerprint=document["data_fingerprint"],
            training=document["training"],
            domain=_parse_domain(document.get("domain")),
            calibration=_parse_calibration(document.get("calibration")),
            members=document.get("members", 1),
            mirror=document.get("mirror", False),
            conformal=_parse_conformal(document.get("conformal")),
            smoothing=document.get("smoothing", SMOOTHING),
        ),
        reports=_parse_reports(document),
        document=document,
    )


def read_engine_files(bundle: Bundle, engine: str, precision: str) -> dict[str, bytes]:
    """The files of a bundle that this engine needs to compute in this precision, {path: content}.

    They are a bundle themselves. Raises InvalidInput where a file has changed since the bundle was opened.
    """
    # Not the manifest in the folder: another bundle may be there by now.
    files = {"bundle.json": json.dumps(bundle.document).encode()}
    for name, expected in bundle.document["files"].items():
        if name.startswith(files_prefix(engine, precision)):
            files[name] = _read_file(bundle.path, name)
            _check_hash(bundle.path, name, hashlib.sha256(files[name]).hexdigest(), expected)
    return files


def read_keras_model(bundle: Bundle) -> bytes:
    """The content of a bundle's model.keras. Raises InvalidInput where it has changed since the bundle was
    opened.
    """
    data = _read_file(bundle.path, KERAS_MODEL)
    _check_hash(
        bundle.path, KERAS_MODEL, hashlib.sha256(data).hexdigest(), bundle.document["files"][KERAS_MODEL]
    )
    return data


def compute_model_id(model: "keras.Model", spec: ModelSpec) -> str:
    """16 hex digits of a SHA-256 over the weights and everything else that changes a score or finding."""
    digest = hashlib.sha256()
    settings = {
        "format": FORMAT_VERSION,
        "classes": CLASSES,
        "network": spec.network,
        "image": [spec.image_size, GEOMETRY, FILTER, JPEG_QUALITY, spec.smoothing],
        "thresholds": asdict(spec.thresholds),
        "calibration": asdict(spec.calibration) if spec.calibration else None,
        "mirror": spec.mirror,
        "conformal": asdict(spec.conformal) if spec.conformal else None,
        **({"domain": asdict(spec.domain)} if spec.domain else {}),
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
        what = "it has no readable bundle.json" if folder.exists() else "the folder does not exist"
        raise InvalidInput(
            f"{folder} is not a bundle: {what}. Give a folder that a training wrote (it prints the name)."
        ) from error


def _parse_manifest(folder: Path, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
        version = document["format_version"]
        names = list(document["files"])
        document["model_id"], document["engines"], document["image"]["size"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{folder}/bundle.json is not as a training writes it. Restore it.") from error
    if version != FORMAT_VERSION:
        raise InvalidInput(
            f"{folder}: bundle format {version}, this version reads {FORMAT_VERSION}. "
            "Use the version of pneumonia-scoring that wrote it, or train again."
        )
    for name in names:
        _check_name(folder, name)
    prepared = image_preparation(document["image"]["size"])
    if document["image"] != prepared:
        raise InvalidInput(
            f"{folder}: its network was trained on images prepared as {json.dumps(document['image'])}, this "
            f"version prepares them as {json.dumps(prepared)}. "
            "Use the version of pneumonia-scoring that wrote it, or train again."
        )
    return dict(document)


def image_preparation(image_size: int) -> dict[str, Any]:
    """How an image becomes the network's input, as bundle.json records it."""
    return {"size": image_size, "geometry": GEOMETRY, "filter": FILTER, "jpeg_quality": JPEG_QUALITY}


def _check_name(folder: Path, name: str) -> None:
    """Raise InvalidInput for a name in bundle.json that leaves the bundle, also through a link."""
    parts = PurePosixPath(name).parts
    is_inside = not name.startswith("/") and ".." not in parts and "\\" not in name and "\0" not in name
    if not is_inside or not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(
            f"{folder}/bundle.json names {name!r}, which is outside the bundle. Do not use this bundle, or "
            "restore it."
        )


def _check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Raise InvalidInput where a file has not the expected SHA-256, by its name."""
    # A ResNet-50 is half a gigabyte. Python's lock is free while a file is hashed.
    with ThreadPoolExecutor(max(1, min(_HASHED_AT_ONCE, len(os.sched_getaffinity(0)) - 1))) as pool:
        checks = [pool.submit(_check_file, folder, name, digest) for name, digest in expected.items()]
        for check in checks:
            check.result()


def _check_file(folder: Path, name: str, expected: str) -> None:
    try:
        actual = _sha256(folder / name)
    except OSError as error:
        raise _missing(folder, name) from error
    _check_hash(folder, name, actual, expected)


def _sha256(path: Path) -> str:
    """As hashlib.file_digest, in larger pieces: after each, this thread waits for Python's lock."""
    digest, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def _read_file(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _missing(folder, name) from error


def _check_hash(folder: Path, name: str, actual: str, expected: str) -> None:
    if actual != expected:
        raise InvalidInput(
            f"{folder}: the file {name} differs from the one that was written (by its sha256). "
            "Restore the folder, or train again."
        )


def _parse_reports(document: dict[str, Any]) -> dict[str, dict[str, EngineReport]]:
    """The engines' reports by precision. Version 0.1.0 wrote one for each engine, under another key."""
    entries = {name: {entry["precision"]: entry} for name, entry in document["engines"].items()}
    entries |= document.get("precisions", {})
    return {
        name: {
            precision: EngineReport(**{k: v for k, v in entry.items() if k != "parity_passed"})
            for precision, entry in each.items()
        }
        for name, each in entries.items()
    }


def _parse_domain(written: dict[str, Any] | None) -> Domain | None:
    """The domain in bundle.json; bundles of earlier versions have none."""
    if written is None:
        return None
    ages = written["ages_years"]
    return Domain(written["threshold"], (ages[0], ages[1]) if ages else None)


def _parse_calibration(written: dict[str, float] | None) -> Calibration | None:
    return Calibration(**written) if written else None


def _parse_conformal(written: dict[str, float] | None) -> Conformal | None:
    return Conformal(**written) if written else None


def _missing(folder: Path, name: str) -> InvalidInput:
    return InvalidInput(f"{folder}: the bundle's file {name} is missing. Restore the whole folder.")
