"""Scoring on several nodes: all of them work, nodes come and go, and one that fails alone is left out."""

import time

import pytest
from support.nodes import node_cluster
from support.processes import kill_with_descendants
from support.runs_killed import CHUNK, IMAGES, check_equal, command, start

SLOWLY = "decode=sleep:0.04"


@pytest.fixture
def nodes(ray_here, tmp_path):
    with node_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def night(archive, tiny_bundle, nodes, tmp_path):
    """Starts the command over the archive; ends it with the test."""
    started = []

    def begin(*options):
        started.append(start(command(archive, tiny_bundle, tmp_path / "r", *nodes.options, *options)))
        return started[-1]

    yield begin
    for process in started:
        kill_with_descendants(process.pid)
        process.communicate()


def wait_until(condition, process, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def ended(process) -> str:
    """What a run that ends well has printed for a person."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return errors


@pytest.mark.parametrize("options", [(), ("--actors", "1,8")])
def test_every_node_works_also_one_that_joins_and_a_lost_one_costs_its_chunks_at_hand(
    undisturbed, nodes, night, tmp_path, options
):
    first, second = nodes.add(SLOWLY), nodes.add(SLOWLY)
    process = night(*options)
    wait_until(lambda: first.done and second.done, process)
    assert (first.actors, second.actors) == (1, 1)
    slower = "decode=sleep:1.5"
    first.workers_do(slower)
    second.workers_do(slower)
    third = nodes.add(SLOWLY)
    wait_until(lambda: third.done, process)
    assert third.actors == 1
    nodes.remove(second)
    first.workers_do()
    third.workers_do()
    ended(process)
    check_equal(tmp_path / "r", undisturbed)
    reads = sum(len(node.reads) for node in (first, second, third))
    # An actor has two chunks in work. The same of a node that is slow to end may be given to another one.
    assert reads <= IMAGES + 4 * CHUNK
