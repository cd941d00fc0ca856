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
from jobs.ray_runtime.growth import NodeRequest, may_grow

GROWTH_S: Final = 600
_POLL_S: Final = 2.0


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has. `node_id` is Ray's; a node that is only needed has none yet.

    `memory_bytes` is what Ray counts for tasks; 0 where it counts none.
    """

    cpus: float
    gpus: float = 0.0
    node_id: str = ""
    memory_bytes: float = 0.0


ANY_NODE: Final = Node(cpus=1)
GPU_NODE: Final = Node(cpus=1, gpus=1)


def wait_for(
    needed: Node, until: float, stopped: Callable[[], bool] = lambda: False, actors: int = 1
) -> list[Node]:
    """Wait until the cluster has a node with CPUs, and the needed GPUs in total; return its nodes.

    Requests `actors` CPUs from the autoscaler, each with a GPU where GPUs are needed. At `until`, on the
    clock of time.monotonic, or when `stopped()` is true, it returns the present nodes: fewer than needed, or
    none. Nodes that lack GPUs wait for others for GROWTH_S, and only where an autoscaler may add these.
    """
    waiting = False
    nodes = present_nodes()
    with NodeRequest() as request:
        while not _enough(nodes, needed) and time.monotonic() < until and not stopped():
            if nodes and not may_grow():
                break
            if not waiting:
                say("waiting for the cluster to grow: it does not have enough nodes yet")
                request.ask(max(actors, int(needed.gpus)), 1, min(needed.gpus, 1))
                waiting = True
            if nodes:
                until = min(until, time.monotonic() + GROWTH_S)
            time.sleep(min(_POLL_S, max(until - time.monotonic(), 0.0)))
            nodes = present_nodes()
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
    return [
        Node(r["CPU"], r.get("GPU", 0.0), node_id, r.get("memory", 0.0))
        for r, node_id in resources
        if r.get("CPU")
    ]


def driver_node() -> str:
    """Ray's id of the node that this process runs on."""
    # Not at the top: see the first lines.
    import ray

    return str(ray.get_runtime_context().get_node_id())


def notice_new_nodes() -> None:
    """Let Ray Data count nodes that have just joined. It would look for them every 20 seconds only."""
    # Not at the top: see the first lines.
    import ray

    # The name of the actor is Ray's own; without it, the nodes are counted later.
    with contextlib.suppress(ValueError, ray.exceptions.RayError):
        coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
        coordinator.get_reserved_resources.remote("pneumonia", recompute=True)
