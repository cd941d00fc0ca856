"""Scoring on machines of a network of their own: some are cut off, and the driver's dies."""

import time

import pytest
from support.machines import machine_cluster
from support.runs_killed import CHUNK, IMAGES, check_equal, command, ended, wait_until

SLOWLY = "decode=sleep:0.04"
SLOWER = "decode=sleep:0.75"


@pytest.fixture
def machines(tmp_path):
    with machine_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def night(archive, tiny_bundle, machines, tmp_path):
    """Starts the command over the archive on a machine, the head if none is named."""

    def begin(machine=machines.head):
        arguments = command(archive, tiny_bundle, tmp_path / "r", "--address", machines.address)
        return machines.run(machine, ["jobs.cli", *arguments])

    return begin


def check_few_read_again(*nodes):
    # An actor has two chunks in work, and the same may be given to another one before its node is lost.
    assert sum(len(node.reads) for node in nodes) <= IMAGES + 4 * CHUNK


@pytest.mark.slow
def test_a_node_that_is_cut_off_for_good_costs_its_chunks(undisturbed, machines, night, tmp_path):
    """35 seconds. The run does not wait for Ray to see that the node is lost, which takes a minute."""
    stays, leaves = machines.add(SLOWLY), machines.add(SLOWLY)
    process = night()
    wait_until(lambda: stays.done and leaves.done, process)
    leaves.workers_do(SLOWER)
    leaves.machine.cut_off()
    ended(process)
    check_equal(tmp_path / "r", undisturbed)
    check_few_read_again(stays, leaves)


@pytest.mark.soak
def test_a_node_that_is_cut_off_for_30_seconds_and_restored(undisturbed, machines, night, tmp_path):
    """70 seconds. Whether the node still counts as alive afterwards is Ray's affair, and differs."""
    stays, leaves = machines.add(SLOWLY), machines.add(SLOWLY)
    process = night()
    wait_until(lambda: stays.done and leaves.done, process)
    stays.workers_do(SLOWER)
    leaves.machine.cut_off()
    time.sleep(30)
    assert process.poll() is None, "the run goes on"
    leaves.machine.restore()
    ended(process)
    check_equal(tmp_path / "r", undisturbed)
    check_few_read_again(stays, leaves)


@pytest.mark.soak
def test_a_run_whose_driver_is_lost_is_taken_up_from_another_node(undisturbed, machines, night, tmp_path):
    """60 seconds. The lost node still counts as alive, so that its chunks are given out again later."""
    stays, leaves = machines.add(SLOWLY), machines.add(SLOWLY)
    lost = night(leaves.machine)
    wait_until(lambda: stays.done and leaves.done, lost)
    leaves.machine.kill()
    lost.communicate()
    ended(night(stays.machine))
    check_equal(tmp_path / "r", undisturbed)
    check_few_read_again(stays, leaves)
