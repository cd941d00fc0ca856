"""The driver's account: what is given out next, where, how often, and when a node or a run is given up."""

import itertools

import pytest

from jobs.scoring.execution.dispatcher import (
    FAILURES_OF_A_NODE,
    PAUSE_S,
    RETRIES,
    SLOW_S,
    UNBEGUN_S,
    Dispatcher,
)
from jobs.scoring.execution.outcomes import ChunkFailure, Receipt
from pneumonia_core.runs.inventory import ChunkRef

ACTORS = {"a": 1, "b": 1}
NODES = frozenset({"a", "b", "c"})


def refs(*chunks: int) -> list[ChunkRef]:
    return [ChunkRef(chunk, "00000-0000.parquet", chunk, 8) for chunk in chunks]


def receipt(chunk: int, node: str = "a", seconds: float = 1.0) -> Receipt:
    return Receipt(chunk, node, 8, 0, seconds)


def failure(chunk: int, node: str = "a") -> ChunkFailure:
    return ChunkFailure(chunk, node, "the disk is full", None)


@pytest.fixture
def dispatcher():
    made = Dispatcher()
    made.add(refs(*range(6)))
    return made


def given(dispatcher, room=100, now=0.0, nodes=NODES):
    return [(item.ref.chunk, item.avoid) for item in dispatcher.take(room, now, nodes)[1]]


def test_chunks_are_given_out_in_order_and_no_more_than_there_is_room_for(dispatcher):
    assert given(dispatcher, room=4) == [(0, ()), (1, ()), (2, ()), (3, ())]
    assert given(dispatcher, room=4) == []
    dispatcher.done(receipt(1))
    assert given(dispatcher, room=4) == [(4, ())]


def test_chunks_are_not_read_before_they_are_given_out():
    dispatcher = Dispatcher()
    numbers = itertools.count()
    dispatcher.add(refs(number)[0] for number in numbers)
    given(dispatcher, room=10)
    assert next(numbers) == 10


def test_positions_count_every_item_and_tell_which_is_still_needed(dispatcher):
    position, items = dispatcher.take(3, 0.0, NODES)
    assert (position, len(items), dispatcher.keep_from) == (0, 3, 0)
    dispatcher.done(receipt(0))
    dispatcher.done(receipt(2))
    assert dispatcher.keep_from == 1
    assert dispatcher.take(2, 0.0, NODES)[0] == 3


def test_all_is_done_when_each_chunk_has_a_receipt(dispatcher):
    given(dispatcher)
    for chunk in range(6):
        assert not dispatcher.all_done
        assert dispatcher.done(receipt(chunk))
    assert dispatcher.all_done
    assert not dispatcher.done(receipt(3)), "a second receipt does not count"


def test_failed_chunk_goes_first_and_elsewhere(dispatcher):
    given(dispatcher, room=3)
    assert dispatcher.failed(failure(1, "b"), 0.0, NODES)
    assert given(dispatcher, room=4) == [(1, ("b",)), (3, ())]


def test_chunk_that_failed_everywhere_may_go_anywhere_after_a_pause():
    dispatcher = Dispatcher()
    dispatcher.add(refs(0))
    for count, node in enumerate(sorted(NODES)):
        assert given(dispatcher) == [(0, tuple("abc"[:count]))], "elsewhere it goes at once"
        assert dispatcher.failed(failure(0, node), 0.0, NODES)
    assert given(dispatcher, now=PAUSE_S) == []
    assert given(dispatcher, now=PAUSE_S * 2**3) == [(0, ())]


@pytest.mark.parametrize("nodes", [NODES, frozenset({"a"})])
def test_chunk_is_tried_five_times_in_all(dispatcher, nodes):
    tries = 0
    now = 0.0
    while True:
        now += 100
        assert given(dispatcher, 1, now, nodes)[0][0] == 0
        tries += 1
        if not dispatcher.failed(failure(0, sorted(nodes)[tries % len(nodes)]), now, nodes):
            break
    assert tries == RETRIES + 1


def test_node_on_which_chunks_fail_alone_is_left_out(dispatcher):
    given(dispatcher)
    for chunk in range(FAILURES_OF_A_NODE):
        assert dispatcher.left_out == frozenset()
        dispatcher.done(receipt(5 - chunk, "a"))
        dispatcher.failed(failure(chunk, "b"), 0.0, NODES)
    assert dispatcher.left_out == {"b"}


def test_no_node_is_left_out_while_all_fail(dispatcher):
    given(dispatcher)
    for chunk, node in itertools.product(range(4), sorted(NODES)):
        dispatcher.failed(failure(chunk, node), 0.0, NODES)
        given(dispatcher, now=1000)
    assert dispatcher.left_out == frozenset()


def test_node_that_scores_again_is_trusted_again(dispatcher):
    given(dispatcher)
    for _ in range(FAILURES_OF_A_NODE - 1):
        dispatcher.failed(failure(0, "b"), 0.0, NODES)
        given(dispatcher, now=100)
    dispatcher.done(receipt(1, "b"))
    dispatcher.done(receipt(2, "a"))
    dispatcher.failed(failure(3, "b"), 100.0, NODES)
    assert dispatcher.left_out == frozenset()


def test_chunks_of_a_lost_node_are_given_out_again_and_others_are_not(dispatcher):
    given(dispatcher, room=3)
    for chunk, node in enumerate("abc"):
        dispatcher.begun(chunk, node, 0.0)
    dispatcher.lose_nodes(NODES - {"b"}, 1.0)
    assert given(dispatcher, room=3, now=1.0) == [(1, ())]


def test_chunk_of_a_lost_node_that_was_done_is_not_done_again(dispatcher):
    given(dispatcher)
    dispatcher.begun(1, "b", 0.0)
    dispatcher.lose_nodes(NODES - {"b"}, 1.0)
    assert dispatcher.done(receipt(1, "b"))
    assert given(dispatcher, now=1.0) == []


def test_what_a_lost_queue_held_is_given_out_again(dispatcher):
    given(dispatcher, room=3)
    dispatcher.begun(0, "a", 0.0)
    dispatcher.lose_queue(1.0)
    assert given(dispatcher, room=3, now=1.0) == [(1, ()), (2, ())]


def test_late_chunk_is_given_out_a_second_time_at_the_end_only(dispatcher):
    given(dispatcher)
    for chunk in range(5):
        dispatcher.begun(chunk, "a", 0.0)
        dispatcher.done(receipt(chunk, "a", seconds=1.0))
    dispatcher.begun(5, "b", 0.0)
    assert dispatcher.second_copies(ACTORS, 1.0)[1] == [], "others took as long"
    ((item),) = dispatcher.second_copies(ACTORS, 2 * SLOW_S)[1]
    assert (item.ref.chunk, item.avoid, item.copy) == (5, ("b",), True)
    assert dispatcher.second_copies(ACTORS, 2 * SLOW_S + 1)[1] == [], "the copy has its time"


def test_copies_that_are_lost_too_are_given_out_again_ever_later(dispatcher):
    given(dispatcher)
    for chunk in range(5):
        dispatcher.done(receipt(chunk, seconds=1.0))
    copied_at = [at for at in range(200) if dispatcher.second_copies(ACTORS, float(at))[1]]
    assert copied_at == [UNBEGUN_S + 1, 2 * UNBEGUN_S + 2, 4 * UNBEGUN_S + 3, 8 * UNBEGUN_S + 4]


def test_no_chunk_is_copied_while_others_wait_or_all_actors_work(dispatcher):
    given(dispatcher, room=3)
    for chunk in range(3):
        dispatcher.begun(chunk, "a", 0.0)
    assert dispatcher.second_copies(ACTORS, 1000.0)[1] == [], "chunks wait"
    given(dispatcher)
    assert dispatcher.second_copies({"a": 3}, 1000.0)[1] == [], "no actor is idle"
    assert dispatcher.second_copies({}, 1000.0)[1] == []


def test_a_node_that_hangs_with_more_chunks_than_actors_leaves_the_others_idle(dispatcher):
    given(dispatcher)
    for chunk in range(4):
        dispatcher.done(receipt(chunk, "a"))
    for chunk in (4, 5):
        dispatcher.begun(chunk, "b", 0.0)
    ((item),) = dispatcher.second_copies({"a": 1, "b": 1}, 1000.0)[1]
    assert item.avoid == ("b",)


def test_chunk_that_nobody_began_was_lost_on_the_way(dispatcher):
    given(dispatcher)
    for chunk in range(5):
        dispatcher.done(receipt(chunk))
    assert dispatcher.second_copies(ACTORS, UNBEGUN_S - 1)[1] == []
    assert [item.ref.chunk for item in dispatcher.second_copies(ACTORS, UNBEGUN_S + 8)[1]] == [5]


def test_chunk_is_not_late_because_workers_start_slowly(dispatcher):
    given(dispatcher)
    assert dispatcher.second_copies({}, 100.0)[1] == []
    assert dispatcher.second_copies(ACTORS, 101.0)[1] == [], "they have just started"
    assert dispatcher.second_copies(ACTORS, 101.0 + 3 * UNBEGUN_S)[1]


def test_chunk_that_waits_while_workers_begin_others_is_not_lost(dispatcher):
    given(dispatcher)
    for chunk in range(5):
        dispatcher.begun(chunk, "a", 4.0 * chunk)
        dispatcher.done(receipt(chunk))
    assert dispatcher.second_copies(ACTORS, UNBEGUN_S + 8)[1] == []
    assert [item.ref.chunk for item in dispatcher.second_copies(ACTORS, UNBEGUN_S + 17)[1]] == [5]


def test_stopping_run_does_not_wait_for_lost_nodes(dispatcher):
    given(dispatcher, room=3)
    dispatcher.begun(0, "a", 0.0)
    dispatcher.begun(1, "b", 0.0)
    dispatcher.forget_lost(NODES - {"b"}, 1.0)
    assert dispatcher.out == 2
    dispatcher.dropped(2)
    assert dispatcher.out == 1
