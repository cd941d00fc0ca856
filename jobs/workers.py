"""How many workers a training has, and how much of the cluster each reserves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pneumonia_core.errors import InvalidInput


@dataclass(frozen=True)
class Workers:
    """`count` training workers of `cpus` CPUs, and a GPU each if `gpu`; decoding tasks of `decode_cpus`."""

    count: int
    cpus: float
    gpu: bool
    decode_cpus: float


def plan_workers(
    count: int | None, gpus: int, batch_size: int, node_cpus: Sequence[float], cluster_gpus: float
) -> Workers:
    """Workers for a cluster whose nodes have `node_cpus` CPUs.

    By default one worker per node, or one per GPU asked for. Raises InvalidInput for what cannot be.
    """
    if gpus and count not in (None, gpus):
        raise InvalidInput(
            f"--workers {count} with --gpus {gpus}: each worker has one GPU; leave --workers out."
        )
    if gpus > cluster_gpus:
        raise InvalidInput(f"--gpus {gpus}: the cluster has {cluster_gpus:g}. Give fewer, or --gpus 0.")
    count = gpus or count or max(1, len(node_cpus))
    if batch_size % count:
        raise InvalidInput(
            f"--batch-size {batch_size} cannot be shared by {count} workers: "
            f"give {math.ceil(batch_size / count) * count}."
        )
    decode_cpus = 1.0 if sum(node_cpus) >= 2 else 0.5
    return Workers(count, cpus_per_worker(node_cpus, count, decode_cpus), bool(gpus), decode_cpus)


def cpus_per_worker(node_cpus: Sequence[float], workers: int, reserve: float) -> float:
    """The most CPUs that each of `workers` can reserve so that `reserve` stays free for tasks.

    If the workers reserved all CPUs, the tasks that feed them would wait for ever. Whole numbers, or below
    one 1/2, 1/4 …; reserving says nothing of how many threads a worker has.
    """
    largest = int(max(node_cpus, default=1))
    sizes = [*range(largest, 0, -1), *(2.0**-power for power in range(1, 10))]
    for size in sizes:
        fits = sum(int(cpus // size) for cpus in node_cpus) >= workers
        if fits and size * workers <= sum(node_cpus) - reserve:
            return float(size)
    raise InvalidInput(f"--workers {workers}: too many for {sum(node_cpus):g} CPUs. Give fewer.")


def cluster_nodes() -> tuple[list[float], float]:
    """The CPUs of each node of the connected cluster that has any, and the GPUs of all."""
    import ray

    alive: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [r["CPU"] for r in alive if r.get("CPU")], sum(r.get("GPU", 0) for r in alive)
