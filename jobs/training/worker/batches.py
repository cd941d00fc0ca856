"""Training batches: drawn from a worker's shard, varied, prepared by a thread while the step runs."""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from ray.data import DataIterator

from pneumonia_core.training.augment import augmentation_of, draw, draw_qualities, reencode_with
from pneumonia_core.training.learner import TrainingBatch
from pneumonia_core.training.recipe import Recipe

SHUFFLE_BATCHES: Final = 16
KEPT_BATCHES: Final = 4
_POLL_S: Final = 0.2
_JOIN_S: Final = 5
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """The training images of one of `world` workers, which encodes images in so many `threads`."""

    shard: DataIterator
    rank: int
    world: int
    threads: int = 1


def training_batches(
    share: Share, recipe: Recipe, epoch: int, steps: int, first: int = 0
) -> Iterator[TrainingBatch]:
    """A worker's batches of an epoch of so many steps, from the step `first` on; both count from 0.

    They depend on nothing else: a training that goes on within an epoch gets what it would have got. The
    images before `first` are read, but neither encoded nor varied.
    """
    strength, size = augmentation_of(recipe), recipe.batch_size // share.world
    rng = np.random.default_rng([recipe.seed, epoch, share.rank])
    drawn = batches_of_epoch(share.shard, size, steps, recipe.seed + epoch)
    for step, (images, labels) in enumerate(drawn):
        qualities = draw_qualities(rng, size, strength)
        variation = draw(rng, size, recipe.image_size, strength)
        if step >= first:
            yield TrainingBatch(
                reencode_with(images, qualities, share.threads), labels.astype(np.int32), variation
            )


def batches_of_epoch(
    shard: DataIterator, size: int, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Exactly `steps` batches of `size` images uint8 [B, H, W] and labels int [B] from a Ray Data shard.

    Every worker must take the same number of steps, or the collective operations hang. A short shard repeats
    its first batches. A long one is read to its end, because the other shards block until it is.
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


def _full_batches(shard: DataIterator, size: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of the shard in local random order; rows repeat only if the shard is smaller than a batch."""
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


class _Done:
    """The end of the items, with the error that ended them."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetched(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made by a thread up to `depth` ahead. An error of the maker is raised here."""
    ready: queue.Queue[Item | _Done] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | _Done) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(_Done())
        except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
            put(_Done(error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _Done):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join(timeout=_JOIN_S)
