"""The key of `study_key` on the nodes: rows of one run must be under one key."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from jobs.ray_runtime.capabilities import answers_of_nodes, on_node
from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput
from pneumonia_core.imaging.study_key import HASH_KEY_VARIABLE, NO_HASH_KEY, hash_key_digest


def check_hash_keys(nodes: Sequence[Node]) -> str | None:
    """The digest of the key that the nodes have, NO_HASH_KEY without one; None for a single node, which is
    not asked.

    Raises InvalidInput where nodes have different keys, or only some have one.
    """
    if len(nodes) < 2:
        return None
    # Ray takes a second to import: a command that is refused does without it.
    import ray

    remote: Any = ray.remote(num_cpus=0)(hash_key_digest)
    asked = {
        remote.options(scheduling_strategy=on_node(node.node_id)).remote(): node.node_id for node in nodes
    }
    by_key: defaultdict[str | None, list[str]] = defaultdict(list)
    for node_id, digest in sorted(answers_of_nodes(asked).items()):
        by_key[digest].append(node_id[:8])
    if len(by_key) > 1:
        without = by_key.pop(None, [])
        values = [f"one value on {', '.join(ids)}" for ids in by_key.values()]
        groups = [*values, *([f"none on {', '.join(without)}"] if without else [])]
        raise InvalidInput(
            f"{HASH_KEY_VARIABLE} is not the same on all nodes: {'; '.join(groups)}. The study_key of some "
            "images could not be joined with that of others. Set the same value on every node, or on none."
        )
    return next(iter(by_key), None) or NO_HASH_KEY
