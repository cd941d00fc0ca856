"""The queue's own code, without Ray: what a source is given, also one that starts over."""

import asyncio
import time

import pytest

from jobs.scoring.execution.queue import ITEMS_AT_ONCE, ChunkQueue, Orders, WorkItem
from pneumonia_core.runs.inventory import ChunkRef


def items(*chunks: int) -> list[WorkItem]:
    return [WorkItem(ChunkRef(chunk, "f", chunk, 8)) for chunk in chunks]


async def drained(queue, position=0):
    """The chunks that a source takes, from this position to the end."""
    taken = []
    while (more := await queue.take(position)) is not None:
        taken += [item and item.ref.chunk for item in more]
        position += len(more)
    return taken


def run(test):
    return asyncio.run(asyncio.wait_for(test, 20))


def test_source_takes_each_item_once_and_ends_when_the_queue_is_closed():
    async def test():
        queue = ChunkQueue()
        source = asyncio.create_task(drained(queue))
        for start in (0, 100, 200):
            await queue.put(start, items(*range(start, start + 100)))
            await asyncio.sleep(0)
        await queue.close()
        return await source

    assert run(test()) == list(range(300))


def test_source_that_starts_over_gets_the_same_items():
    async def test():
        queue = ChunkQueue()
        await queue.put(0, items(*range(10)))
        before = await queue.take(0)
        await queue.close()
        return before == await queue.take(0), await drained(queue)

    assert run(test()) == (True, list(range(10)))


def test_items_that_are_no_longer_needed_keep_their_positions_and_no_memory():
    async def test():
        queue = ChunkQueue()
        await queue.put(0, items(*range(200)))
        await queue.exchange(Orders(keep_from=150))
        await queue.close()
        return await drained(queue), len(queue._items)

    taken, held = run(test())
    assert taken == [None] * 150 + list(range(150, 200))
    assert held == 50


def test_repeated_put_changes_nothing_and_a_new_queue_goes_on_at_its_position():
    async def test():
        queue, new = ChunkQueue(), ChunkQueue()
        for _ in range(2):
            await queue.put(0, items(0, 1, 2))
        await queue.put(2, items(2, 3))
        await new.put(7, items(7, 8))
        for each in (queue, new):
            await each.close()
        return await drained(queue), await drained(new, 5)

    assert run(test()) == ([0, 1, 2, 3], [None, None, 7, 8])


def test_one_call_gives_a_bounded_number_of_items():
    async def test():
        queue = ChunkQueue()
        await queue.put(0, items(*range(3 * ITEMS_AT_ONCE)))
        return len(await queue.take(0))

    assert run(test()) == ITEMS_AT_ONCE


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        (Orders(), "go"),
        (Orders(stopping=True), "stop"),
        (Orders(left_out=frozenset({"here"})), "elsewhere"),
        (Orders(left_out=frozenset({"there"})), "go"),
    ],
)
def test_worker_may_begin_unless_the_run_stops_or_its_node_is_left_out(orders, expected):
    async def test():
        queue = ChunkQueue()
        await queue.exchange(orders)
        answer = await queue.begin(3, "here", (), scores=True, clock_s=time.time(), hash_key="")
        report = await queue.exchange(orders)
        return answer, report.begun, report.turned_away

    begun = ((3, "here"),) if expected == "go" else ()
    assert run(test()) == (expected, begun, (3,) if expected == "elsewhere" else ())


def test_worker_on_a_node_that_the_chunk_avoids_may_not_begin():
    assert (
        run(ChunkQueue().begin(3, "here", ("there", "here"), scores=True, clock_s=time.time(), hash_key=""))
        == "elsewhere"
    )


@pytest.mark.parametrize(("days", "permission"), [(0.9, "go"), (1.1, "wrong clock"), (-1.1, "wrong clock")])
def test_worker_whose_clock_is_wrong_by_more_than_a_day_may_not_begin(days, permission):
    clock_s = time.time() + days * 86_400
    assert run(ChunkQueue().begin(3, "here", (), scores=True, clock_s=clock_s, hash_key="")) == permission


async def begin(queue, node, hash_key, avoid=()):
    return await queue.begin(3, node, avoid, scores=True, clock_s=time.time(), hash_key=hash_key)


def test_worker_on_a_node_with_another_key_than_the_first_one_is_turned_away():
    async def test():
        queue = ChunkQueue()
        await begin(queue, "z", "of one that is turned away", avoid=("z",))
        answers = [await begin(queue, *each) for each in [("a", "x"), ("b", "y"), ("c", ""), ("d", "x")]]
        return answers, await queue.exchange(Orders())

    answers, report = run(test())
    assert answers == ["go", "elsewhere", "elsewhere", "go"]
    assert report.begun == ((3, "a"), (3, "d"))
    assert report.turned_away == (3, 3, 3)
    assert (report.hash_key, report.of_another_key) == ("x", {"b", "c"})


@pytest.mark.parametrize(("known", "permission"), [("x", "elsewhere"), ("", "elsewhere"), ("y", "go")])
def test_key_that_the_driver_knows_counts_and_not_that_of_the_first_worker(known, permission):
    async def test():
        queue = ChunkQueue()
        await queue.exchange(Orders(hash_key=known))
        return await begin(queue, "b", "y"), (await queue.exchange(Orders(hash_key=known))).hash_key

    assert run(test()) == (permission, known)


def test_report_tells_each_beginning_once_and_all_actors():
    async def test():
        queue = ChunkQueue()
        await queue.register("x", "a")
        await queue.begin(1, "a", (), scores=True, clock_s=time.time(), hash_key="")
        await queue.begin(2, "a", (), scores=False, clock_s=time.time(), hash_key="")
        first = await queue.exchange(Orders())
        await queue.register("x", "b")
        second = await queue.exchange(Orders())
        return first, second

    first, second = run(test())
    assert (first.begun, first.actors) == (((1, "a"),), {"x": "a"})
    assert (second.begun, second.actors) == ((), {"x": "b"})
    assert first.instance == second.instance
