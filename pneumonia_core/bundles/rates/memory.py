"""Rates that earlier runs have measured, kept beside their results: RESULTS/rates/<model_id>.json."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.measure import Rates
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.files import read_bytes, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.system.environment import installed_versions

_FOLDER: Final = "rates"
_FORMAT_VERSION: Final = 1


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
    try:
        return _parse(json.loads(read_bytes(_file(results, model_id))))
    except (OSError, PneumoniaError, ValueError, KeyError, TypeError, AttributeError):
        # They are measured again.
        return {}


def remember_rates(results: Location, model_id: str, measured: Mapping[NodeKind, Rates]) -> None:
    """Keep these rates too, in place of earlier ones of the same kinds. Raises OSError or PneumoniaError."""
    kinds = {**remembered_rates(results, model_id), **measured}
    document = {
        "format_version": _FORMAT_VERSION,
        "versions": installed_versions(),
        "kinds": [{**asdict(kind), "images_per_s": as_json(rates)} for kind, rates in kinds.items()],
    }
    write_bytes(_file(results, model_id), f"{json.dumps(document, indent=2)}\n".encode())


def as_json(rates: Rates) -> dict[str, dict[str, float]]:
    """The rates as {engine: {precision: images/s}}."""
    values: dict[str, dict[str, float]] = {}
    for choice, rate in rates.items():
        values.setdefault(choice.engine, {})[choice.precision] = round(rate, 1)
    return values


def _file(results: Location, model_id: str) -> Location:
    return results.child(_FOLDER).child(f"{model_id}.json")


def _parse(document: Any) -> dict[NodeKind, dict[EngineChoice, float]]:  # noqa: ANN401 - as JSON gives it
    if document["format_version"] != _FORMAT_VERSION or document["versions"] != installed_versions():
        return {}
    return {
        (kind := _kind(each)): _rates(each["images_per_s"], bool(kind.card)) for each in document["kinds"]
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


def _rates(values: Mapping[str, Mapping[str, float]], on_gpu: bool) -> dict[EngineChoice, float]:
    return {
        EngineChoice(engine, precision, on_gpu): _rate(rate)
        for engine, rates in values.items()
        for precision, rate in rates.items()
    }


def _rate(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"not a rate: {value}")
    return float(value)
