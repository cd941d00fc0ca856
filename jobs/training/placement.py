"""How many workers a training has, and how much of the cluster each reserves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput


@dataclass(frozen=True)
class TrainingPlacement:
    """`count` training workers of `cpus` CPUs and `gpus` GPUs each; decoding tasks of `decode_cpus`."""

    count: int
    cpus: float
    gpus: int
    decode_cpus: float


def plan_workers(count: int | None, gpus: int, batch_size: int, nodes: Sequence[Node]) -> TrainingPlacement:
    """Workers for a cluster of these nodes.

    By default one per GPU asked for, or one per node, as many of them as share the batch evenly. Fewer workers than GPUs
    have several each. Raises InvalidInput for what cannot be.
    """
    if gpus and count and gpus % count:
        raise InvalidInput(
            f"--workers {count} with --gpus {gpus}: each worker has as many GPUs; leave --workers out, or give "
            f"--gpus {math.ceil(gpus / count) * count}."
        )
    if not nodes:
        raise InvalidInput("the cluster has no node with a CPU. Start one, or train on this machine.")
    if gpus > (present := sum(node.gpus for node in nodes)):
        raise InvalidInput(f"--gpus {gpus}: the cluster has {present:g}. Give fewer, or --gpus 0.")
    count = count or gpus or max(n for n in range(1, len(nodes) + 1) if batch_size % n == 0)
    if batch_size % (parts := gpus or count):
        raise InvalidInput(
            f"--batch-size {batch_size} cannot be shared by {parts} {'GPUs' if gpus else 'workers'}: "
            f"give {math.ceil(batch_size / parts) * parts}."
        )
    decode_cpus = 1.0 if sum(node.cpus for node in nodes) >= 2 else 0.5
    each = gpus // count
    return TrainingPlacement(count, cpus_per_worker(nodes, count, decode_cpus, each), each, decode_cpus)


def cpus_per_worker(nodes: Sequence[Node], workers: int, reserve: float, gpus: int = 0) -> float:
    """The most CPUs that each of `workers`, which needs `gpus` GPUs of its node, can reserve so that `reserve` stays
    free for tasks.

    If the workers reserved all CPUs, the tasks that feed them would wait for ever. Whole numbers, or below
    one 1/2, 1/4 …; reserving says nothing of how many threads a worker has.
    """
    largest = int(max(node.cpus for node in nodes))
    sizes = [*range(largest, 0, -1), *(2.0**-power for power in range(1, 10))]
    for size in sizes:
        slots = sum(min(int(n.cpus // size), int(n.gpus) // gpus if gpus else workers) for n in nodes)
        if slots >= workers and size * workers <= sum(node.cpus for node in nodes) - reserve:
            return float(size)
    cpus = sum(node.cpus for node in nodes)
    if gpus:
        raise InvalidInput(
            f"--gpus {gpus * workers} for --workers {workers}: {gpus} of a node with a CPU to spare for each worker, and "
            f"the nodes have {', '.join(f'{node.gpus:g}' for node in nodes)}. Give another number of --workers."
        )
    raise InvalidInput(f"{workers} workers: too many for {cpus:g} CPUs. Give fewer.")
