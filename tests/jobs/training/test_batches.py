"""Batches of an epoch, and the thread that prepares them."""

import numpy as np
import pyarrow as pa
import pytest

from jobs.training.worker.batches import batches_of_epoch, prefetched


@pytest.fixture(scope="module")
def shard(ray_here):
    """Ten rows whose pictures hold their number."""
    import ray.data

    images = np.repeat(np.arange(10, dtype=np.uint8), 16).reshape(10, 4, 4)
    rows = ray.data.from_numpy(images).rename_columns({"data": "image"})
    rows = rows.add_column("label", lambda table: pa.array([0] * len(table)), batch_format="pyarrow")
    rows = rows.materialize()
    rows.context.execution_options.preserve_order = True
    return rows.iterator()


@pytest.mark.parametrize(("size", "steps"), [(4, 2), (4, 5), (3, 1), (16, 2)])
def test_every_worker_gets_exactly_its_steps_of_full_batches(shard, size, steps):
    batches = list(batches_of_epoch(shard, size, steps, seed=1))
    assert [len(images) for images, _ in batches] == [size] * steps
    shown = [int(image[0, 0]) for images, _ in batches for image in images]
    if size * steps <= 10:
        assert len(set(shown)) == len(shown)


def test_batches_come_in_another_order_with_another_seed(shard):
    def order(seed):
        return [int(image[0, 0]) for images, _ in batches_of_epoch(shard, 5, 2, seed) for image in images]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_prefetching_gives_the_same_items_and_the_makers_error():
    def items():
        yield from range(5)
        raise ValueError("no more")

    got = []
    with pytest.raises(ValueError, match="no more"):  # noqa: PT012 - what came before the error counts
        for item in prefetched(items()):
            got.append(item)
    assert got == list(range(5))


def test_prefetching_that_is_left_early_stops_its_maker():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    reader = prefetched(items(), depth=2)
    assert next(reader) == 0
    reader.close()
    assert len(made) < 10
