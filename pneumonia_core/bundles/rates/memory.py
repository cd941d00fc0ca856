"""Rates that earlier runs have measured, kept beside their results: RESULTS/rates/<model_id>.json."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, TypeVar

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.gpu_sharing import SharedRates
from pneumonia_core.bundles.rates.measure import Rates
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.files import read_bytes, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.system.environment import installed_versions

_FOLDER: Final = "rates"
_FORMAT_VERSION: Final = 1
Value = TypeVar("Value")


@dataclass(frozen=True)
class NodeKind:
    """Nodes that compute alike: by their processor's model, CPUs, GPUs, and the threads of an engine.

    `card` is the model of the GPUs where the engines compute on them; empty where they compute on the CPU.
    """

    processor: str
    cpus: float
    gpus: float
    threads: int
    card: str = ""


def remembered_rates(results: Location, model_id: str) -> dict[NodeKind, dict[EngineChoice, float]]:
    """The rates of a model's engines by the kind of node.

    Empty where there are none yet, they cannot be read, or they were measured with other versions.
    """
    return _remembered(results, model_id).rates


def remembered_actors(
    results: Location, model_id: str
) -> dict[NodeKind, dict[EngineChoice, tuple[float, ...]]]:
    """The images/s of 1, 2, … actors that share a GPU, of each engine and precision, by the kind of node."""
    return _remembered(results, model_id).actors


def remember_rates(results: Location, model_id: str, measured: Mapping[NodeKind, Rates]) -> None:
    """Keep these rates too, in place of earlier ones of the same kinds. Raises OSError or PneumoniaError."""
    known = _remembered(results, model_id)
    _write(
        results,
        model_id,
        replace(known, rates={**known.rates, **{kind: dict(rates) for kind, rates in measured.items()}}),
    )


def remember_actors(results: Location, model_id: str, measured: Mapping[NodeKind, SharedRates]) -> None:
    """Keep these rates of actors too. Raises OSError or PneumoniaError."""
    known = _remembered(results, model_id)
    merged = {kind: {**known.actors.get(kind, {}), **rates} for kind, rates in measured.items()}
    _write(results, model_id, replace(known, actors={**known.actors, **merged}))


@dataclass(frozen=True)
class _Remembered:
    """The content of the file."""

    rates: dict[NodeKind, dict[EngineChoice, float]] = field(default_factory=dict)
    actors: dict[NodeKind, dict[EngineChoice, tuple[float, ...]]] = field(default_factory=dict)


def as_json(rates: Rates) -> dict[str, dict[str, float]]:
    """The rates as {engine: {precision: images/s}}."""
    return _by_engine({choice: round(rate, 1) for choice, rate in rates.items()})


def _by_engine(values: Mapping[EngineChoice, Value]) -> dict[str, dict[str, Value]]:
    nested: dict[str, dict[str, Value]] = {}
    for choice, value in values.items():
        nested.setdefault(choice.engine, {})[choice.precision] = value
    return nested


def _file(results: Location, model_id: str) -> Location:
    return results.child(_FOLDER).child(f"{model_id}.json")


def _write(results: Location, model_id: str, content: _Remembered) -> None:
    actors = {
        kind: _by_engine({choice: [round(rate, 1) for rate in each] for choice, each in shared.items()})
        for kind, shared in content.actors.items()
    }
    document = {
        "format_version": _FORMAT_VERSION,
        "versions": installed_versions(),
        "kinds": [{**asdict(kind), "images_per_s": as_json(rates)} for kind, rates in content.rates.items()],
        "gpu_actors": [{**asdict(kind), "images_per_s": rates} for kind, rates in actors.items()],
    }
    write_bytes(_file(results, model_id), f"{json.dumps(document, indent=2)}\n".encode())


def _remembered(results: Location, model_id: str) -> _Remembered:
    try:
        return _parse(json.loads(read_bytes(_file(results, model_id))))
    except (OSError, PneumoniaError, ValueError, KeyError, TypeError, AttributeError):
        # They are measured again.
        return _Remembered()


def _parse(document: Any) -> _Remembered:  # noqa: ANN401 - as JSON gives it
    if document["format_version"] != _FORMAT_VERSION or document["versions"] != installed_versions():
        return _Remembered()
    return _Remembered(
        _kinds(document["kinds"], _rate),
        _kinds(document.get("gpu_actors", []), lambda each: tuple(map(_rate, each))),
    )


def _kinds(
    entries: Any,  # noqa: ANN401 - as JSON gives it
    parse: Callable[[Any], Value],
) -> dict[NodeKind, dict[EngineChoice, Value]]:
    return {
        (kind := _kind(entry)): {
            EngineChoice(engine, precision, on_gpu=bool(kind.card)): parse(value)
            for engine, values in entry["images_per_s"].items()
            for precision, value in values.items()
        }
        for entry in entries
    }


def _kind(values: Mapping[str, Any]) -> NodeKind:
    """Earlier versions measured on CPUs alone, and wrote no card."""
    return NodeKind(
        str(values["processor"]),
        float(values["cpus"]),
        float(values["gpus"]),
        int(values["threads"]),
        str(values.get("card", "")),
    )


def _rate(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"not a rate: {value}")
    return float(value)
