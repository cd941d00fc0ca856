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

    @property
    def replicas(self) -> int:
        """The parts of a batch that are computed at once: one for each GPU, without GPUs one a worker."""
        return self.count * max(1, self.gpus)


def plan_workers(count: int | None, gpus: int, batch_size: int, nodes: Sequence[Node]) -> TrainingPlacement:
    """Workers for a cluster with these nodes.

    With GPUs the default is as few workers as give each the same number of them: one per node where it can
    be, because the GPUs of one process share its input and its weights. Without GPUs it is one per node,
    reduced until the batch can be shared evenly. Raises InvalidInput where the cluster or the batch size does
    not fit.
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
    count = count or (_workers_for_gpus(gpus, nodes) if gpus else _workers_for_cpus(batch_size, nodes))
    if batch_size % (parts := gpus or count):
        raise InvalidInput(
            f"--batch-size {batch_size} cannot be shared evenly by {parts} {'GPUs' if gpus else 'workers'}. "
            f"Give {math.ceil(batch_size / parts) * parts}."
        )
    decode_cpus = 1.0 if sum(node.cpus for node in nodes) >= 2 else 0.5
    each = gpus // count
    return TrainingPlacement(count, cpus_per_worker(nodes, count, decode_cpus, each), each, decode_cpus)


def _workers_for_gpus(gpus: int, nodes: Sequence[Node]) -> int:
    """The smallest number of workers with equally many GPUs each, all on the worker's node."""
    shared = (each for each in range(gpus, 1, -1) if gpus % each == 0)
    return next((gpus // each for each in shared if _workers_that_fit(each, nodes) * each >= gpus), gpus)


def _workers_that_fit(gpus: int, nodes: Sequence[Node]) -> int:
    """How many workers of so many GPUs the nodes have room for."""
    return sum(int(node.gpus) // gpus for node in nodes)


def _workers_for_cpus(batch_size: int, nodes: Sequence[Node]) -> int:
    return max(count for count in range(1, len(nodes) + 1) if batch_size % count == 0)


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


def can_release_on(node_id: str, nodes: Sequence[Node], placement: TrainingPlacement) -> bool:
    """Whether the driver's node may also calibrate and write the bundle, which takes what a worker takes.

    A head that only coordinates has no CPUs, or a small part of the workers' memory. Nodes of one kind differ
    in what is free when Ray starts, hence half.
    """
    able = {node.node_id: node.memory_bytes for node in nodes if node.cpus >= placement.cpus}
    others = [memory for key, memory in able.items() if key != node_id]
    return node_id in able and able[node_id] >= min(others, default=0.0) / 2
