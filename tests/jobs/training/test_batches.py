"""Batches of an epoch, and the thread that prepares them."""

import numpy as np
import pyarrow as pa
import pytest

from jobs.training.worker.batches import Share, batches_of_epoch, prefetched, training_batches
from pneumonia_core.training.recipe import Recipe


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


@pytest.mark.parametrize(("rank", "world", "steps"), [(0, 1, 3), (1, 2, 7)])
def test_an_epoch_that_goes_on_at_a_step_gets_the_batches_that_it_would_have_got(shard, rank, world, steps):
    """With two workers the shard is too short, and repeats batches."""
    recipe = Recipe("resnet18", "none", 4, batch_size=4, seed=5)
    share = Share(shard, rank, world)
    whole = list(training_batches(share, recipe, 1, steps))
    assert len(whole) == steps
    for first in (1, 2, steps - 1):
        rest = list(training_batches(share, recipe, 1, steps, first))
        for ours, expected in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(ours.images, expected.images)
            np.testing.assert_array_equal(ours.labels, expected.labels)
            for name, values in ours.variation._asdict().items():
                np.testing.assert_array_equal(values, getattr(expected.variation, name))


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
