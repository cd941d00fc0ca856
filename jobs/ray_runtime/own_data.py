"""Ray Data in the Ray of one command, without the actors by which the commands of a cluster share it.

Each of them is a process that imports Ray Data for more than a second, and the first chunk waits for one.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import ray
from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler
from ray.data._internal.cluster_autoscaler.base_autoscaling_coordinator import AutoscalingCoordinator
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.stats import _StatsManager


class AllResources(AutoscalingCoordinator):
    """The execution has all that the node has. Ray's own is an actor that divides nodes among executions."""

    def __init__(self, *_: object, **__: object) -> None:
        self._resources = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def request_resources(self, *_: object, **__: object) -> None:
        """A Ray of one command gets no other node."""

    def cancel_request(self) -> None:
        """Nothing was requested."""

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        return self._resources


class NoTracker:
    """Takes the place of the actor to which actors tell where they are: they are all on one node."""

    # Ray calls `tracker.update_actor_location.remote(…)`.
    class update_actor_location:
        @staticmethod
        def remote(*_: object) -> None:
            """Nobody asks."""


def _no_locations(_: object) -> dict[str, str]:
    return {}


def _no_metrics(*_: object, **__: object) -> None:
    """Those of Ray Data are for a dashboard."""


# What is bound to another object: its owner, its name, and that object.
_INSTEAD: Final[tuple[tuple[Any, str, object], ...]] = (
    (rate_based_cluster_autoscaler, "DefaultAutoscalingCoordinator", AllResources),
    (actor_pool_map_operator, "get_or_create_actor_location_tracker", NoTracker),
    (actor_pool_map_operator, "get_actor_locations", _no_locations),
    (_StatsManager, "register_dataset_to_stats_actor", staticmethod(_no_metrics)),
    (_StatsManager, "update_execution_metrics", staticmethod(_no_metrics)),
    (_StatsManager, "update_iteration_metrics", staticmethod(_no_metrics)),
)


@contextlib.contextmanager
def alone_in_ray() -> Iterator[None]:
    """Data sets that this process executes in the block start none of those actors. Ray has no switch for it.

    The block is a session of a Ray of this process's own, in which it executes one data set at a time.
    """
    before = [(owner, name, vars(owner)[name]) for owner, name, _ in _INSTEAD]
    for owner, name, instead in _INSTEAD:
        setattr(owner, name, instead)
    try:
        yield
    finally:
        for owner, name, own in before:
            setattr(owner, name, own)
