"""How many workers a training has, and how much of the cluster each reserves."""

import os
import time
from dataclasses import dataclass
from typing import Any, Final

from jobs.console.output import say


def wait_for_cpus() -> tuple[list[float], float]:
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


def cluster_cpus() -> int:
    """CPUs of the connected cluster, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))


GROWTH_S: Final = 600


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has."""

    cpus: float
    gpus: float = 0.0


def wait_for_nodes(gpus: int, may_grow: bool) -> list[Node]:
    """The nodes of the connected cluster that have CPUs.

    One that `may_grow` and has none, or fewer GPUs than these, is asked for more, and given ten minutes.
    """
    import ray.autoscaler.sdk

    until = time.monotonic() + (GROWTH_S if may_grow else 0)
    asked = False
    while True:
        nodes = _nodes()
        enough = bool(nodes) and sum(node.gpus for node in nodes) >= gpus
        if enough or time.monotonic() >= until:
            break
        if not asked:
            say("waiting for the cluster to grow: it has too few nodes yet")
            ray.autoscaler.sdk.request_resources(bundles=[{"CPU": 1, "GPU": 1}] * gpus or [{"CPU": 1}])
            asked = True
        time.sleep(2)
    if asked:
        # Ray keeps what was asked for until something else is: the training itself holds its nodes.
        ray.autoscaler.sdk.request_resources(num_cpus=0)
    return nodes


def _nodes() -> list[Node]:
    import ray

    alive: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(r["CPU"], r.get("GPU", 0.0)) for r in alive if r.get("CPU")]
