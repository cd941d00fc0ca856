"""How the scoring pipeline lies on a cluster: how many actors and tasks, and with what of it."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobs.progress import say

# Larger groups of cores in one process gain nothing: the interpreter between the images becomes the limit.
MAX_ACTOR_CPUS: Final = 8


@dataclass(frozen=True)
class Shape:
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


def choose_shape(
    kind: str,
    actors: tuple[int, int] | None = None,
    decode_cpus: float | None = None,
    actor_cpus: float | None = None,
) -> Shape:
    """The shape for the connected cluster: `gpu` where it has GPUs, unless `kind` says otherwise.

    Whatever the cluster, all actors' CPUs and the largest task's together stay within its CPUs: otherwise
    Ray Data would wait for ever.
    """
    cpus, gpus = _wait_for_cpus()
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "gpu":
        return _gpu_shape(sum(cpus), gpus, actors, decode_cpus)
    return cpu_shape(cpus, actors, actor_cpus)


def cpu_shape(cpus: Sequence[float], actors: tuple[int, int] | None, actor_cpus: float | None) -> Shape:
    """Actors of as many cores as the least number of them leaves each, on nodes of these CPUs."""
    wanted = actors[0] if actors else 1
    actor_cpus = min(actor_cpus or _largest_for(wanted, cpus), min(cpus))
    fitting = _fitting(actor_cpus, cpus)
    # More actors than fit wait for the cluster to grow; the first one always fits.
    least, most = actors or (1, fitting)
    return Shape("cpu", min(least, fitting), most, actor_cpus, 0, 0)


def _largest_for(actors: int, cpus: Sequence[float]) -> int:
    """The most CPUs, up to the limit, that so many actors can have each; 1 where they do not fit even so."""
    sizes = range(MAX_ACTOR_CPUS, 1, -1)
    return next((size for size in sizes if _fitting(min(size, *cpus), cpus) >= actors), 1)


def _fitting(actor_cpus: float, cpus: Sequence[float]) -> int:
    """How many actors of so many CPUs the nodes hold."""
    return sum(int(count // actor_cpus) for count in cpus)


def _wait_for_cpus() -> tuple[list[float], float]:
    """The CPUs of each node that has any, and all GPUs; a cluster that has none yet is asked to grow."""
    import ray

    asked = False
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [resources["CPU"] for resources in nodes if resources.get("CPU", 0.0) > 0]
        if cpus:
            if asked:
                # Ray keeps what was asked for until something else is: the actors themselves hold their nodes.
                ray.autoscaler.sdk.request_resources(num_cpus=0)
            return cpus, sum(resources.get("GPU", 0.0) for resources in nodes)
        if not asked:
            say("the cluster has no CPU yet: waiting for a node")
            ray.autoscaler.sdk.request_resources(num_cpus=1)
            asked = True
        time.sleep(2)


def _gpu_shape(cpus: float, gpus: float, actors: tuple[int, int] | None, decode_cpus: float | None) -> Shape:
    least, most = actors or (1, max(1, int(gpus)))
    decode = min(decode_cpus or 1.0, cpus / 2)
    # With GPUs the actor only feeds its GPU; without, it computes on a CPU of its own where there is one.
    actor_cpus = min(1.0, (cpus - decode) / most)
    if actor_cpus < 0.1:
        most = max(1, int((cpus - decode) / 0.1))
        actor_cpus = min(1.0, (cpus - decode) / most)
    return Shape("gpu", min(least, most), most, actor_cpus, 1.0 if gpus >= most else 0.0, decode)


def cluster_cpus() -> int:
    """CPUs of the connected cluster, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))
