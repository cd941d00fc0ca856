"""Nodes requested from the cluster's autoscaler, by tasks that wait for them.

Ray's own `request_resources` keeps one request for the whole cluster, also after the command that made it.

The functions import Ray, which takes a second: a command that is refused, or scores nothing, does without it.
"""

import json
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    import ray

# Ray's autoscaler writes its report under this key; `ray status` reads it there.
_STATUS_KEY: Final = b"__autoscaling_status"
# A Ray without an autoscaler, which would report, has this key: a command has started it for itself.
FIXED_SIZE_KEY: Final = b"pneumonia_fixed_size"


class NodeRequest:
    """Tasks that do nothing and fit on new nodes alone. Where tasks wait, the autoscaler adds nodes.

    They wait until they are withdrawn; where the command dies, they go with it.
    """

    def __init__(self) -> None:
        self._waiting: list[ray.ObjectRef[None]] = []
        self._size = (0.0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.withdraw()

    def withdraw(self) -> None:
        """Ask for nothing any more. Nodes that are on their way still come."""
        # Not at the top: see the first lines.
        import ray

        for task in self._waiting:
            ray.cancel(task)
        self._waiting = []

    def ask(self, count: int, cpus: float, gpus: float = 0.0) -> None:
        """Ask for room for so many actors of this size, again and again. Each call replaces the one before.

        Where it is for less than half of those that wait, or another size, this call only withdraws them.
        """
        # Not at the top: see the first lines.
        import ray

        if self._waiting:
            tasks = self._waiting
            _, self._waiting = ray.wait(tasks, num_returns=len(tasks), timeout=0, fetch_local=False)
        if self._waiting and (len(self._waiting) > 2 * count or self._size != (cpus, gpus)):
            # Ray takes the request for a cancelled task back only when no other one of its kind waits.
            self.withdraw()
            return
        self._size = (cpus, gpus)
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_nothing)
        missing = count - len(self._waiting)
        self._waiting += [task.options(scheduling_strategy="SPREAD").remote() for _ in range(missing)]


def _nothing() -> None:
    """What a task does whose node has come."""


def may_grow() -> bool:
    """Whether the cluster may have an autoscaler: False where Ray reports that it only watches the nodes.

    An autoscaler that has not reported yet, or of the second version, which reports elsewhere, may be there.
    """
    # Not at the top: see the first lines.
    from ray._private.worker import global_worker
    from ray.autoscaler._private.util import format_readonly_node_type

    # This process's own connection: Ray's functions for it use one that other parts of Ray close.
    worker: Any = global_worker
    if worker.gcs_client.internal_kv_exists(FIXED_SIZE_KEY, None):
        return False
    status = json.loads(worker.gcs_client.internal_kv_get(_STATUS_KEY, None) or "{}")
    kinds: dict[str, str] = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    # Nodes that somebody else has started get a type of their own each.
    return not kinds or any(kind != format_readonly_node_type(node) for node, kind in kinds.items())
