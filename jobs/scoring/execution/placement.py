"""Placement of the scoring pipeline: the actors and tasks of each node, and their CPUs and GPUs.

A placement is a rule: it says of any node, also of one that joins later, which actors belong on it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput

Shape = Literal["cpu", "gpu"]

# While one chunk's part is written, the other chunk's images keep the cores busy.
CHUNKS_PER_ACTOR: Final = 2
# More cores in one process gain nothing: the interpreter's work between the images becomes the limit.
MAX_ACTOR_CPUS: Final = 8
# An actor with a GPU only feeds it. Where CPUs are few, most of them decode.
FEEDING_CPUS: Final = 1.0
FEEDING_SHARE: Final = 0.25
# Ray counts resources in ten-thousandths.
_RESOLUTION: Final = 10_000
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class PlacementOptions:
    """What the user asked for; None leaves it to the placement. `actors` are the least and the most."""

    actors: tuple[int, int] | None = None
    actor_cpus: float | None = None
    actor_gpus: float | None = None
    decode_cpus: float | None = None


@dataclass(frozen=True)
class Seat:
    """The place of one actor: its node and its share of the node's CPUs."""

    node_id: str
    cpus: float


@dataclass(frozen=True)
class Placement:
    """The rule that gives each node its actors.

    In shape `cpu` an actor reads, decodes and scores. The actors of a node share its CPUs equally, at most
    `largest_cpus` each; with `actor_cpus` given, each has those. In shape `gpu` tasks of `decode_cpus` each
    read and decode, and the engine runs in actors of `actor_cpus` and `actor_gpus`, but not on the `blind`
    nodes, whose GPUs no engine sees. `least` actors fit on the present nodes; `most` is None where actors
    fill the cluster, however far it grows.
    """

    kind: Shape
    least: int
    most: int | None
    largest_cpus: float = MAX_ACTOR_CPUS
    actor_cpus: float | None = None
    actor_gpus: float = 0.0
    decode_cpus: float = 0.0
    blind: frozenset[str] = frozenset()

    def seats(self, node: Node) -> list[float]:
        """The CPUs of each actor that belongs on this node; none where the actors need a GPU it lacks."""
        if self.kind == "cpu":
            return seats(node.cpus, self.actor_cpus, self.largest_cpus)
        if node.node_id in self.blind:
            return []
        cpus = self.actor_cpus or 0.0
        fitting = _whole(node.cpus / cpus) if cpus else math.inf
        return [cpus] * int(min(_actors_on_gpus(node, self.actor_gpus), fitting))

    @property
    def actors_per_gpu(self) -> int | None:
        """How many actors share a GPU; None in shape `cpu`."""
        return _whole(1 / self.actor_gpus) if self.actor_gpus else None

    def fed_on_gpu(self, node: Node) -> int:
        """How many actors on each of a node's GPUs its CPUs feed, each with a core; at least one.

        Where actors are to have more than a core, half of the CPUs are left to decode.
        """
        gpus, each = _whole(node.gpus), self.actor_cpus or 0.0
        core = FEEDING_CPUS if each <= FEEDING_CPUS else 2 * each
        return max(1, _whole(node.cpus / (gpus * core))) if gpus else 1

    def seated(self, nodes: Iterable[Node]) -> list[Seat]:
        """The seats of all nodes; the largest `most` of them, spread over the nodes, where there are more."""
        numbered = [
            (number, Seat(node.node_id, cpus))
            for node in nodes
            for number, cpus in enumerate(self.seats(node))
        ]
        numbered.sort(key=lambda each: (-each[1].cpus, each[0]))
        return [seat for _, seat in numbered[: self.most]]


def threads(cpus: float) -> int:
    """The threads of a process that has these CPUs."""
    return max(1, round(cpus))


def seats(cpus: float, actor_cpus: float | None = None, largest: float = MAX_ACTOR_CPUS) -> list[float]:
    """The CPUs of each actor on a node with `cpus` CPUs: all of them, in equal shares of at most `largest`.

    With `actor_cpus`, as many actors of that size as fit, at least one.
    """
    if cpus <= 0:
        return []
    if actor_cpus is not None:
        return [min(actor_cpus, cpus)] * max(1, _whole(cpus / actor_cpus))
    count = max(1, min(math.ceil(cpus / largest - _ROUNDING), _whole(cpus)))
    return [_in_ray(cpus / count)] * count


def choose_placement(nodes: Sequence[Node], kind: Shape, options: PlacementOptions) -> Placement:
    """The placement of this shape on these nodes; they may be none yet.

    Raises InvalidInput where GPUs are asked for and no node has one.
    """
    if kind == "gpu":
        return _gpu_placement(nodes, options)
    if options.actor_gpus is not None:
        raise InvalidInput(
            f"--actor-gpus {options.actor_gpus:g}: the engine of this run computes on CPUs. "
            "Leave it out, or give --shape gpu."
        )
    return _cpu_placement([node.cpus for node in nodes], options)


def _cpu_placement(cpus: Sequence[float], options: PlacementOptions) -> Placement:
    """As many actors as needed share the CPUs: each is as large as that allows."""
    least, most = options.actors or (1, None)
    largest = _largest_for(least, cpus)
    fitting = sum(len(seats(each, options.actor_cpus, largest)) for each in cpus)
    # Actors that do not fit start when the cluster grows.
    return Placement("cpu", min(least, max(1, fitting)), most, largest, options.actor_cpus)


def _largest_for(actors: int, cpus: Sequence[float]) -> float:
    """The largest share, up to MAX_ACTOR_CPUS, at which this many actors fit; 1 where they never do."""
    shares = {each / count for each in set(cpus) for count in range(1, math.floor(each) + 1)}
    for share in sorted({MAX_ACTOR_CPUS, *shares}, reverse=True):
        if share <= MAX_ACTOR_CPUS and sum(len(seats(each, None, share)) for each in cpus) >= actors:
            return share
    return 1.0 if cpus else MAX_ACTOR_CPUS


def _gpu_placement(nodes: Sequence[Node], options: PlacementOptions) -> Placement:
    """Actors share the GPUs where they are more; tasks that decode share the CPUs that the actors leave."""
    gpus = sum(_whole(node.gpus) for node in nodes)
    if nodes and not gpus:
        raise InvalidInput("--shape gpu: no node of the cluster has a GPU. Leave it out, or add such a node.")
    least, most = options.actors or (1, None)
    share = options.actor_gpus or (1 / math.ceil(least / gpus) if gpus else 1.0)
    actor_cpus = _feeding_cpus(nodes, share, options.actor_cpus)
    fitting = sum(_actors_on_gpus(node, share) for node in nodes)
    left = [node.cpus - actor_cpus * _actors_on_gpus(node, share) for node in nodes]
    decode_cpus = _decode_cpus(left)
    if options.decode_cpus is not None:
        decode_cpus = min(options.decode_cpus, max(left, default=math.inf))
    return Placement(
        "gpu",
        min(least, max(1, fitting)),
        most,
        actor_cpus=actor_cpus,
        # A third, rounded up, would fit on a GPU only twice.
        actor_gpus=_in_ray(share),
        decode_cpus=_in_ray(decode_cpus),
    )


def share_of_gpu(actors: int) -> float:
    """The share of each of so many actors on a GPU."""
    return _in_ray(1 / actors)


def _actors_on_gpus(node: Node, share: float) -> int:
    """How many actors of this share of a GPU the node's GPUs take; no actor has parts of two GPUs."""
    return _whole(node.gpus) * _whole(1 / share)


def _feeding_cpus(nodes: Sequence[Node], share: float, asked: float | None) -> float:
    """The CPUs of an actor with a GPU: what fits on each node with GPUs and leaves CPUs to decode there."""
    per_actor = (node.cpus / actors for node in nodes if (actors := _actors_on_gpus(node, share)))
    crowded = min(per_actor, default=math.inf)
    if asked is not None:
        return _in_ray(min(asked, crowded / 2))
    return _in_ray(min(FEEDING_CPUS, crowded * FEEDING_SHARE))


def _decode_cpus(left: Sequence[float]) -> float:
    """The size of a decoding task, about one CPU, at which tasks leave the fewest CPUs of the nodes unused.

    `left` are the CPUs of each node that the actors do not have.
    """
    some = [cpus for cpus in left if cpus > _ROUNDING]
    sizes = {cpus / count for cpus in some for count in (math.floor(cpus), math.ceil(cpus)) if count}
    if any(cpus >= 1 for cpus in some):
        sizes.add(1.0)

    def unused(size: float) -> float:
        return sum(cpus - size * _whole(cpus / size) for cpus in some)

    return min(sizes, key=lambda size: (round(unused(size), 3), abs(size - 1)), default=1.0)


def _whole(number: float) -> int:
    """The number without its fraction; 2.9999999 is 3."""
    return math.floor(number + _ROUNDING)


def _in_ray(resource: float) -> float:
    """The resource rounded down to what Ray can count, so that shares of a whole always fit in it."""
    return math.floor(resource * _RESOLUTION + _ROUNDING) / _RESOLUTION
