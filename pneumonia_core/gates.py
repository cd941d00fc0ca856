"""Gates: what is unusual in a run warns of its commit, or holds it back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pneumonia_core.errors import InvalidInput

GateAction = Literal["off", "warn", "hold"]
_ACTIONS: Final[Mapping[str, GateAction]] = {"off": "off", "warn": "warn", "hold": "hold"}

# One reject of ten images is 10 %, and says nothing: a share counts from so many images on.
MIN_IMAGES: Final = 5
# An archive of 10 images that gets 15 more has not changed its nature.
MIN_VOLUME_CHANGE: Final = 20


@dataclass(frozen=True)
class Gate:
    """What becomes of a run whose share is above `limit`: a number from 0 to 1, for the volume a factor.

    For the drift it is a population stability index.
    """

    action: GateAction
    limit: float


@dataclass(frozen=True)
class Share:
    """So many images `of` so many; for the volume, those listed and those that the run before listed."""

    images: int
    of: int


@dataclass(frozen=True)
class Drift:
    """The population stability index of the scores of `images` images against those `of` so many before.

    `by_chance` is the index that so many images exceed once in a thousand nights although nothing has
    changed, if each is of another patient: several of one patient are alike, and exceed it more often.
    """

    index: float
    images: int
    of: int
    by_chance: float


@dataclass(frozen=True)
class Alarm:
    """What a gate found: `images` of `of`, more than its limit allows, in numbers and in words.

    Of a drift, the images of the run and those that they were compared with.
    """

    gate: str
    action: GateAction
    images: int
    of: int
    limit: float
    text: str


DEFAULT_GATES: Final[Mapping[str, Gate]] = {
    "rejected": Gate("warn", 0.2),
    "read-rejected": Gate("hold", 0.05),
    "gone": Gate("hold", 0.1),
    "out-of-domain": Gate("warn", 0.25),
    "drift": Gate("warn", 0.25),
    "volume": Gate("warn", 2.0),
}
# Limits that are not shares, and what they must be above.
_LEAST: Final = {"drift": 0.0, "volume": 1.0}
_WHAT: Final = {
    "rejected": "images handled by this run were rejected",
    "read-rejected": "images handled by this run could not be read",
    "gone": "images that the archives had have gone",
    "out-of-domain": "scored images are unlike the training data",
}


def parse_gates(texts: Sequence[str]) -> dict[str, Gate]:
    """The gates of a run: the default ones, changed by texts such as `gone=hold:0.2` or `rejected=off`.

    A text without a value keeps the default limit. Raises InvalidInput where a text cannot be read.
    """
    gates = dict(DEFAULT_GATES)
    for text in texts:
        name, _, rest = text.partition("=")
        word, colon, value = rest.partition(":")
        action = _ACTIONS.get(word)
        limit = _limit(name, value) if colon else gates[name].limit if name in gates else None
        if name not in gates or action is None or limit is None:
            raise InvalidInput(
                f"the gate {text!r} cannot be read. Write NAME=off, NAME=warn:VALUE or NAME=hold:VALUE, such "
                f"as gone=hold:0.2. NAME is one of {', '.join(gates)}. VALUE is a share from 0 to 1, for "
                "volume a factor above 1, for drift an index above 0."
            )
        gates[name] = Gate(action, limit)
    return gates


def _limit(name: str, text: str) -> float | None:
    """The number in the text, or None where this gate has no such limit."""
    try:
        limit = float(text)
    except ValueError:
        return None
    is_limit = _LEAST[name] < limit < math.inf if name in _LEAST else 0 <= limit <= 1
    return limit if is_limit else None


def raised_alarms(gates: Mapping[str, Gate], found: Mapping[str, Share | Drift]) -> tuple[Alarm, ...]:
    """The alarms of the gates that are not off; a gate for which nothing was found raises none."""
    return tuple(
        Alarm(name, gate.action, share.images, share.of, gate.limit, _text(name, gate, share))
        for name, gate in gates.items()
        if gate.action != "off" and (share := found.get(name)) is not None and _exceeds(name, gate, share)
    )


def _exceeds(name: str, gate: Gate, share: Share | Drift) -> bool:
    if isinstance(share, Drift):
        return share.images >= MIN_IMAGES and share.index > max(gate.limit, share.by_chance)
    if name == "volume":
        fewer, more = sorted((share.images, share.of))
        return more - fewer >= MIN_VOLUME_CHANGE and more >= fewer * gate.limit
    return share.images >= MIN_IMAGES and share.images > share.of * gate.limit


def _text(name: str, gate: Gate, share: Share | Drift) -> str:
    if isinstance(share, Drift):
        return (
            f"the scores of {share.images:,} images are distributed unlike those of {share.of:,} images in "
            f"the runs before: population stability index {share.index:.2f} (gate drift: {gate.action} above "
            f"{gate.limit:g})"
        )
    if name == "volume":
        return (
            f"{share.images:,} images are listed, {share.of:,} were in the run before (gate volume: "
            f"{gate.action} from a factor of {gate.limit:g})"
        )
    return (
        f"{share.images:,} of {share.of:,} {_WHAT[name]}: {share.images / share.of:.1%} (gate {name}: "
        f"{gate.action} above {gate.limit:.1%})"
    )
