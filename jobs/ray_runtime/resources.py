"""The nodes of the connected cluster, and waiting for it to grow.

The functions import Ray, which takes a second: a command that is refused, or scores nothing, does without it.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jobs.console.output import say

GROWTH_S: Final = 600
_POLL_S: Final = 2.0


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has. `node_id` is Ray's; a node that is only needed has none yet."""

    cpus: float
    gpus: float = 0.0
    node_id: str = ""


ANY_NODE: Final = Node(cpus=1)
GPU_NODE: Final = Node(cpus=1, gpus=1)


def wait_for(needed: Node, until: float, stopped: Callable[[], bool] = lambda: False) -> list[Node]:
    """Wait until the cluster has a node with CPUs, and the needed GPUs in total; return its nodes.

    Requests more nodes from the autoscaler. At `until`, on the clock of time.monotonic, or when
    `stopped()` is true, it returns the present nodes: fewer than needed, or none.
    """
    # Not at the top: see the first lines.
    import ray.autoscaler.sdk

    requested = False
    nodes = present_nodes()
    while not _enough(nodes, needed) and time.monotonic() < until and not stopped():
        if not requested:
            say("waiting for the cluster to grow: it does not have enough nodes yet")
            bundles = [{"CPU": 1, "GPU": 1}] * int(needed.gpus) or [{"CPU": 1}]
            ray.autoscaler.sdk.request_resources(bundles=bundles)
            requested = True
        time.sleep(min(_POLL_S, max(until - time.monotonic(), 0.0)))
        nodes = present_nodes()
    if requested:
        # Ray keeps a request until the next one. From here on the job's own tasks keep the nodes.
        ray.autoscaler.sdk.request_resources(num_cpus=0)
    return nodes


def _enough(nodes: list[Node], needed: Node) -> bool:
    return bool(nodes) and sum(node.gpus for node in nodes) >= needed.gpus


def cluster_cpus() -> int:
    """CPUs of the connected cluster, at least 1."""
    # Not at the top: see the first lines.
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", os.cpu_count() or 1)))


def present_nodes() -> list[Node]:
    """The living nodes that have CPUs: a head that only coordinates has none."""
    # Not at the top: see the first lines.
    import ray

    alive: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    resources = [(node["Resources"], node["NodeID"]) for node in alive]
    return [Node(r["CPU"], r.get("GPU", 0.0), node_id) for r, node_id in resources if r.get("CPU")]


def notice_new_nodes() -> None:
    """Let Ray Data count nodes that have just joined. It would look for them every 20 seconds only."""
    # Not at the top: see the first lines.
    import ray

    # The name of the actor is Ray's own; without it, the nodes are counted later.
    with contextlib.suppress(ValueError, ray.exceptions.RayError):
        coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        coordinator.get_reserved_resources.remote("pneumonia", recompute=True)
