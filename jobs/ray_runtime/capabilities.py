"""What each node of the cluster can compute with, measured on the node itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobs.ray_runtime.resources import Node
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Answer = TypeVar("Answer")
Key = TypeVar("Key")
# A node that has not answered by then is busy or lost. Its actors find out themselves.
_ANSWER_S: Final = 120.0
_POLL_S: Final = 1.0


def node_capabilities(
    nodes: Sequence[Node], look_for_gpus: bool, engine: str = "tensorflow"
) -> dict[str, Capabilities]:
    """The capabilities of the nodes by their ids; of those that answer.

    With `look_for_gpus` the nodes with GPUs say which of them the engine sees.
    """
    # Ray takes a second to import: a command that is refused does without it.
    import ray

    looking = {node.node_id for node in nodes if look_for_gpus and node.gpus}
    if not looking and [node.node_id for node in nodes] == [ray.get_runtime_context().get_node_id()]:
        return {nodes[0].node_id: measure_capabilities(look_for_gpus=False)}
    return answers_of_nodes(
        {_measure_on(node.node_id, node.node_id in looking, engine): node.node_id for node in nodes}
    )


def answers_of_nodes(
    asked: Mapping["ObjectRef[Answer]", Key],
    wait_s: float = _ANSWER_S,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[Key, Answer]:
    """What has been answered in that time, by what each request stands for in `asked`, such as a node.

    Once it is `stopped`, it waits no longer.
    """
    # Not at the top: see above.
    import ray

    until = time.monotonic() + wait_s
    ready: list[ObjectRef[Answer]] = []
    while len(ready) < len(asked) and (left_s := until - time.monotonic()) > 0 and not stopped():
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=min(_POLL_S, left_s))
    found = {}
    for answer in ready:
        try:
            found[asked[answer]] = ray.get(answer)
        except ray.exceptions.RayError:
            # The node has left the cluster.
            continue
    return found


def blind_nodes(nodes: Sequence[Node], capabilities: Mapping[str, Capabilities]) -> frozenset[str]:
    """The ids of the nodes with GPUs of which the engine that was asked sees none."""
    asked = (node.node_id for node in nodes if node.gpus and node.node_id in capabilities)
    return frozenset(node_id for node_id in asked if not capabilities[node_id].gpus)


def unseen_gpus(blind: frozenset[str], nodes: int, library: str = "TensorFlow") -> str:
    """A sentence that names the `blind` ones of so many nodes, whose GPUs the library does not see."""
    where = ", ".join(sorted(node_id[:8] for node_id in blind))
    return f"Ray counts GPUs on {len(blind)} of {nodes} nodes ({where}) that {library} does not see."


def _measure_on(node_id: str, look_for_gpus: bool, engine: str) -> Any:  # noqa: ANN401 - Ray has no type for it
    # Not at the top: see above.
    import ray

    # A worker process that has imported TensorFlow takes memory as long as it lives.
    remote: Any = ray.remote(num_cpus=0, max_calls=1 if look_for_gpus else 0)(measure_capabilities)
    return remote.options(scheduling_strategy=on_node(node_id)).remote(look_for_gpus, engine)


def on_node(node_id: str) -> "NodeAffinitySchedulingStrategy":
    """Ray's strategy for a task that runs on this node alone."""
    # Not at the top: see above.
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)
