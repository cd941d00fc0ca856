"""What each node of the cluster can compute with, measured on the node itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobs.ray_runtime.resources import Node
from pneumonia_core.bundles.capabilities import Capabilities, measure_capabilities

# A node that has not answered by then is busy or lost. Its actors find out themselves.
_ANSWER_S: Final = 120.0


def node_capabilities(nodes: Sequence[Node], look_for_gpus: bool) -> dict[str, Capabilities]:
    """The capabilities of the nodes by their ids; of those that answer.

    With `look_for_gpus` the nodes with GPUs say which of them TensorFlow sees.
    """
    # Ray takes a second to import: a command that is refused does without it.
    import ray

    looking = {node.node_id for node in nodes if look_for_gpus and node.gpus}
    if not looking and [node.node_id for node in nodes] == [ray.get_runtime_context().get_node_id()]:
        return {nodes[0].node_id: measure_capabilities(look_for_gpus=False)}
    answers = {_measure_on(node.node_id, node.node_id in looking): node.node_id for node in nodes}
    ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_ANSWER_S)
    found = {}
    for answer in ready:
        try:
            found[answers[answer]] = ray.get(answer)
        except ray.exceptions.RayError:
            # The node has left the cluster.
            continue
    return found


def blind_nodes(nodes: Sequence[Node], capabilities: Mapping[str, Capabilities]) -> frozenset[str]:
    """The ids of the nodes with GPUs of which TensorFlow sees none."""
    asked = (node.node_id for node in nodes if node.gpus and node.node_id in capabilities)
    return frozenset(node_id for node_id in asked if not capabilities[node_id].gpus)


def unseen_gpus(blind: frozenset[str], nodes: int) -> str:
    """A sentence that names the `blind` ones of so many nodes."""
    where = ", ".join(sorted(node_id[:8] for node_id in blind))
    return f"Ray counts GPUs on {len(blind)} of {nodes} nodes ({where}) that TensorFlow does not see."


def _measure_on(node_id: str, look_for_gpus: bool) -> Any:  # noqa: ANN401 - Ray's types do not know options
    # Not at the top: see above.
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # A worker process that has imported TensorFlow takes memory as long as it lives.
    remote: Any = ray.remote(num_cpus=0, max_calls=1 if look_for_gpus else 0)(measure_capabilities)
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return remote.options(scheduling_strategy=strategy).remote(look_for_gpus)
