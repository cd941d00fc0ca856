"""Placement of the scoring pipeline: how many actors and tasks, with how many CPUs and GPUs each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from jobs.ray_runtime.resources import Node

# More cores in one process gain nothing: the interpreter's work between the images becomes the limit.
MAX_ACTOR_CPUS: Final = 8


@dataclass(frozen=True)
class Placement:
    """Actors and tasks of the pipeline on a cluster.

    In shape `cpu` an actor reads, decodes and scores. In shape `gpu` tasks of `decode_cpus` each read and
    decode, and the engine runs in actors.
    """

    kind: Literal["cpu", "gpu"]
    min_actors: int
    max_actors: int
    actor_cpus: float
    actor_gpus: float
    decode_cpus: float

    @property
    def actor_threads(self) -> int:
        return max(1, round(self.actor_cpus))

    @property
    def decode_threads(self) -> int:
        return max(1, round(self.decode_cpus))


def choose_placement(
    nodes: Sequence[Node],
    kind: str = "auto",
    actors: tuple[int, int] | None = None,
    decode_cpus: float | None = None,
    actor_cpus: float | None = None,
) -> Placement:
    """The placement on these nodes: shape `gpu` where they have GPUs, unless `kind` names a shape.

    On any cluster the CPUs of all actors and of the largest task together stay within its CPUs: otherwise Ray
    Data would wait forever.
    """
    cpus = [node.cpus for node in nodes]
    gpus = sum(node.gpus for node in nodes)
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "gpu":
        return _gpu_placement(sum(cpus), gpus, actors, decode_cpus)
    return cpu_placement(cpus, actors, actor_cpus)


def cpu_placement(
    cpus: Sequence[float], actors: tuple[int, int] | None, actor_cpus: float | None
) -> Placement:
    """Actors on nodes of these CPUs: the least number of them fits, and each is as large as that allows."""
    wanted = actors[0] if actors else 1
    actor_cpus = min(actor_cpus or _largest_for(wanted, cpus), min(cpus))
    fitting = _fitting(actor_cpus, cpus)
    # Actors that do not fit start when the cluster grows. The first one always fits.
    least, most = actors or (1, fitting)
    return Placement("cpu", min(least, fitting), most, actor_cpus, 0, 0)


def _largest_for(actors: int, cpus: Sequence[float]) -> int:
    """The most CPUs, up to MAX_ACTOR_CPUS, that each of these actors can have; 1 where they do not fit."""
    sizes = range(MAX_ACTOR_CPUS, 1, -1)
    return next((size for size in sizes if _fitting(min(size, *cpus), cpus) >= actors), 1)


def _fitting(actor_cpus: float, cpus: Sequence[float]) -> int:
    """How many actors of `actor_cpus` fit on nodes of these CPUs."""
    return sum(int(count // actor_cpus) for count in cpus)


def _gpu_placement(
    cpus: float, gpus: float, actors: tuple[int, int] | None, decode_cpus: float | None
) -> Placement:
    least, most = actors or (1, max(1, int(gpus)))
    decode = min(decode_cpus or 1.0, cpus / 2)
    # With a GPU the actor only feeds it. Without one, the actor computes on its own CPU where one is left.
    actor_cpus = min(1.0, (cpus - decode) / most)
    if actor_cpus < 0.1:
        most = max(1, int((cpus - decode) / 0.1))
        actor_cpus = min(1.0, (cpus - decode) / most)
    return Placement("gpu", min(least, most), most, actor_cpus, 1.0 if gpus >= most else 0.0, decode)
