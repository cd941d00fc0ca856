"""Batches for the step: drawn from a worker's shard, made ready in a thread while the step runs."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

SHUFFLE_BATCHES: Final = 16
KEPT_BATCHES: Final = 4
_END: Final = object()


def batches_of_epoch(shard: Any, size: int, steps: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Exactly `steps` batches of `size` images uint8 [B, H, W] and labels int [B] of a Ray Data shard.

    Every worker must take the same number of steps, or the collective operations hang. So a shard that
    runs short begins anew with the images it gave first in this epoch, and one with more is read to its
    end, which the other workers' shards wait for.
    """
    given: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for images, labels in _full_batches(shard, size, seed):
        if count < steps:
            yield images, labels
            count += 1
        if len(given) < KEPT_BATCHES:
            given.append((images, labels))
    if not given:
        raise ValueError("a worker's shard is empty: there are fewer images than workers")
    while count < steps:
        yield given[count % len(given)]
        count += 1


def _full_batches(shard: Any, size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The shard's rows in local random order; only a shard smaller than a batch repeats rows in one."""
    batches = shard.iter_batches(
        batch_size=size,
        batch_format="numpy",
        prefetch_batches=2,
        local_shuffle_buffer_size=SHUFFLE_BATCHES * size,
        local_shuffle_seed=seed,
    )
    full = False
    for batch in batches:
        images, labels = batch["image"], batch["label"]
        if len(images) == size:
            full = True
            yield images, labels
        elif not full:
            index = np.arange(size) % len(images)
            yield images[index], labels[index]


def prefetched(items: Iterable[Any], depth: int = 2) -> Iterator[Any]:
    """The same items, made by a thread up to `depth` ahead; what making them raises is raised here."""
    ready: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001 - a decoder written in Rust panics with no Exception
            put((_END, error))

    thread = threading.Thread(target=make, name="feed", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join(timeout=5)
