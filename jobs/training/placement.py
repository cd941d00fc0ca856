"""Placement of a training: how many workers, with how many CPUs and GPUs each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.ray_runtime.resources import Node
from pneumonia_core.errors import InvalidInput


@dataclass(frozen=True)
class TrainingPlacement:
    """`count` workers with `cpus` CPUs and `gpus` GPUs each; decoding tasks with `decode_cpus` CPUs."""

    count: int
    cpus: float
    gpus: int
    decode_cpus: float


def plan_workers(count: int | None, gpus: int, batch_size: int, nodes: Sequence[Node]) -> TrainingPlacement:
    """Workers for a cluster with these nodes.

    The default is one worker per requested GPU, else one per node, reduced until the batch can be shared
    evenly. With fewer workers than GPUs each has several. Raises InvalidInput where the cluster or the batch
    size does not fit.
    """
    if gpus and count and gpus % count:
        raise InvalidInput(
            f"--workers {count} with --gpus {gpus}: each worker needs the same number of GPUs. "
            f"Leave --workers out, or give --gpus {math.ceil(gpus / count) * count}."
        )
    if not nodes:
        raise InvalidInput("the cluster has no node with a CPU. Start one, or train on this machine.")
    if gpus > (present := sum(node.gpus for node in nodes)):
        raise InvalidInput(f"--gpus {gpus}: the cluster has {present:g} GPUs. Give fewer, or --gpus 0.")
    count = count or gpus or max(n for n in range(1, len(nodes) + 1) if batch_size % n == 0)
    if batch_size % (parts := gpus or count):
        raise InvalidInput(
            f"--batch-size {batch_size} cannot be shared evenly by {parts} {'GPUs' if gpus else 'workers'}. "
            f"Give {math.ceil(batch_size / parts) * parts}."
        )
    decode_cpus = 1.0 if sum(node.cpus for node in nodes) >= 2 else 0.5
    each = gpus // count
    return TrainingPlacement(count, cpus_per_worker(nodes, count, decode_cpus, each), each, decode_cpus)


def cpus_per_worker(nodes: Sequence[Node], workers: int, reserve: float, gpus: int = 0) -> float:
    """The largest number of CPUs that each worker can reserve while `reserve` CPUs stay free for tasks.

    Each worker needs `gpus` GPUs on its node. If the workers reserved all CPUs, the tasks that feed them
    would wait forever. The result is a whole number, or below one a power of 1/2. It does not limit a
    worker's threads.
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
            f"--gpus {gpus * workers} for --workers {workers}: each worker needs {gpus} GPUs and a CPU of a "
            f"node, and the nodes have {', '.join(f'{node.gpus:g}' for node in nodes)} GPUs. "
            "Give another number of --workers."
        )
    raise InvalidInput(f"{workers} workers are too many for {cpus:g} CPUs. Give fewer.")
