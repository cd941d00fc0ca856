"""The processes of the Ray that a command starts for itself.

Imports Ray: `jobs.ray_runtime.session` sets the environment first.
"""

import contextlib
from collections.abc import Iterator

import ray._private.node
from ray._private.node import Node

from jobs.ray_runtime.growth import FIXED_SIZE_KEY


class OwnNode(Node):
    """A node of Ray without those of its processes that nothing here uses. Each takes half a second to start.

    They are its autoscaler, its dashboard, and the monitor that brings logs to the driver.
    """

    def start_monitor(self) -> None:
        """No autoscaler: a Ray of one command has one node. Others that use it learn that here."""
        self.get_gcs_client().internal_kv_put(FIXED_SIZE_KEY, b"", True, None)

    def start_log_monitor(self) -> None:
        """What workers print stays in their log files."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Ray starts the process of the dashboard also where none is wanted, and waits until it answers."""


@contextlib.contextmanager
def own_node() -> Iterator[None]:
    """What `ray.init` starts in this block is an OwnNode: it has no argument for that."""
    # Ray's types do not know that the name may be bound to another class.
    module = ray._private.node
    module.Node = OwnNode  # type: ignore[misc]
    try:
        yield
    finally:
        module.Node = Node  # type: ignore[misc]
