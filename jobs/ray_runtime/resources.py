"""The nodes of the connected cluster, and waiting for it to grow.

Ray is imported in the functions: a command that is refused does without it.
"""

import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from jobs.console.output import say

GROWTH_S: Final = 600
_POLL_S: Final = 2.0


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has."""

    cpus: float
    gpus: float = 0.0


ANY_NODE: Final = Node(cpus=1)


def wait_for(needed: Node, until: float, stop: threading.Event | None = None) -> list[Node]:
    """The nodes of the cluster that have CPUs, as soon as there is one and they have the needed GPUs together.

    The cluster is asked to grow meanwhile. At `until`, on the clock of time.monotonic, or when `stop` is set, the
    nodes that are there are returned: fewer than needed, or none.
    """
    import ray.autoscaler.sdk

    stop = stop or threading.Event()
    requested = False
    nodes = _nodes()
    while not _enough(nodes, needed) and time.monotonic() < until and not stop.is_set():
        if not requested:
            say("waiting for the cluster to grow: it has too few nodes yet")
            bundles = [{"CPU": 1, "GPU": 1}] * int(needed.gpus) or [{"CPU": 1}]
            ray.autoscaler.sdk.request_resources(bundles=bundles)
            requested = True
        stop.wait(min(_POLL_S, max(until - time.monotonic(), 0.0)))
        nodes = _nodes()
    if requested:
        # Ray keeps a request until the next one. From here on the job itself holds its nodes.
        ray.autoscaler.sdk.request_resources(num_cpus=0)
    return nodes


def _enough(nodes: list[Node], needed: Node) -> bool:
    return bool(nodes) and sum(node.gpus for node in nodes) >= needed.gpus


def cluster_cpus() -> int:
    """CPUs of the connected cluster, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))


def _nodes() -> list[Node]:
    import ray

    alive: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(r["CPU"], r.get("GPU", 0.0)) for r in alive if r.get("CPU")]
