"""How the scoring pipeline lies on a cluster: how many actors and tasks, and with what of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobs.ray_runtime.resources import wait_for_cpus

# Larger groups of cores in one process gain nothing: the interpreter between the images becomes the limit.
MAX_ACTOR_CPUS: Final = 8


@dataclass(frozen=True)
class Placement:
    """How the pipeline lies on the cluster: in shape `cpu` one actor does all, in shape `gpu` decoding is
    done by tasks of `decode_cpus` and the engine runs in actors."""

    kind: str
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
    kind: str,
    actors: tuple[int, int] | None = None,
    decode_cpus: float | None = None,
    actor_cpus: float | None = None,
) -> Placement:
    """The shape for the connected cluster: `gpu` where it has GPUs, unless `kind` says otherwise.

    Whatever the cluster, all actors' CPUs and the largest task's together stay within its CPUs: otherwise
    Ray Data would wait for ever.
    """
    cpus, gpus = wait_for_cpus()
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "gpu":
        return _gpu_placement(sum(cpus), gpus, actors, decode_cpus)
    return cpu_placement(cpus, actors, actor_cpus)


def cpu_placement(
    cpus: Sequence[float], actors: tuple[int, int] | None, actor_cpus: float | None
) -> Placement:
    """Actors of as many cores as the least number of them leaves each, on nodes of these CPUs."""
    wanted = actors[0] if actors else 1
    actor_cpus = min(actor_cpus or _largest_for(wanted, cpus), min(cpus))
    fitting = _fitting(actor_cpus, cpus)
    # More actors than fit wait for the cluster to grow; the first one always fits.
    least, most = actors or (1, fitting)
    return Placement("cpu", min(least, fitting), most, actor_cpus, 0, 0)


def _largest_for(actors: int, cpus: Sequence[float]) -> int:
    """The most CPUs, up to the limit, that so many actors can have each; 1 where they do not fit even so."""
    sizes = range(MAX_ACTOR_CPUS, 1, -1)
    return next((size for size in sizes if _fitting(min(size, *cpus), cpus) >= actors), 1)


def _fitting(actor_cpus: float, cpus: Sequence[float]) -> int:
    """How many actors of so many CPUs the nodes hold."""
    return sum(int(count // actor_cpus) for count in cpus)


def _gpu_placement(
    cpus: float, gpus: float, actors: tuple[int, int] | None, decode_cpus: float | None
) -> Placement:
    least, most = actors or (1, max(1, int(gpus)))
    decode = min(decode_cpus or 1.0, cpus / 2)
    # With GPUs the actor only feeds its GPU; without, it computes on a CPU of its own where there is one.
    actor_cpus = min(1.0, (cpus - decode) / most)
    if actor_cpus < 0.1:
        most = max(1, int((cpus - decode) / 0.1))
        actor_cpus = min(1.0, (cpus - decode) / most)
    return Placement("gpu", min(least, most), most, actor_cpus, 1.0 if gpus >= most else 0.0, decode)
