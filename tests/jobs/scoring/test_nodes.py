"""Scoring on several nodes: all of them work, nodes come and go, and one that fails alone is left out."""

import json
import os
import signal
import time
from collections import Counter

import pytest
from support.nodes import can_mount, node_cluster
from support.processes import kill_with_descendants, wait_for_process
from support.runs_killed import CHUNK, IMAGES, check_equal, command, ended, finish, start, wait_until
from support.scoring import rows

from pneumonia_core.phantoms.data_sets import write_archive

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


@pytest.mark.parametrize("options", [(), pytest.param(("--actors", "1,8"), marks=pytest.mark.slow)])
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
    (record,) = (tmp_path / "r" / "runs").glob("*/run.json")
    by_node = json.loads(record.read_text())["nodes"]
    assert len(by_node) == 3
    assert sum(by_node.values()) == IMAGES
    # An actor has two chunks in work: those of the lost node, and of the two that were slowed down, for which
    # they look late, may be read again.
    assert reads <= IMAGES + 6 * CHUNK


@pytest.mark.slow
def test_node_whose_disk_is_full_is_left_out_and_nothing_is_lost(undisturbed, nodes, night, tmp_path):
    full = nodes.add("write@/parts/=enospc")
    # Slow enough for three chunks to fail on the other node first.
    sound = nodes.add("decode=sleep:0.1")
    errors = ended(night())
    check_equal(tmp_path / "r", undisturbed)
    assert not full.done
    assert len(sound.done) == IMAGES // CHUNK
    # Three chunks fail there before the node is left out: it may begin too late for as many.
    if len(full.reads) >= 4 * CHUNK:
        assert "is left out: chunks fail there that other nodes score (No space left on device" in errors
    assert len(full.reads) <= IMAGES


@pytest.mark.slow
def test_node_that_joins_with_another_hash_key_scores_nothing(undisturbed, nodes, night, tmp_path):
    """Its study keys could not be joined with those of the other rows."""
    first = nodes.add(SLOWLY)
    process = night()
    wait_until(lambda: first.done, process)
    first.workers_do("decode=sleep:0.7")
    late = nodes.add(hash_key="salt")
    said = []
    for line in process.stderr:
        said.append(line)
        if "is left out" in line:
            break
    first.workers_do()
    said.append(ended(process))
    check_equal(tmp_path / "r", undisturbed)
    assert (late.done, late.reads) == ([], [])
    assert len(first.done) == IMAGES // CHUNK
    errors = "".join(said)
    assert errors.count("its PNEUMONIA_HASH_KEY is not that of the other nodes") == 1
    assert "salt" not in errors


def test_one_full_disk_and_one_broken_connection_cost_a_retry(undisturbed, nodes, night, tmp_path):
    node = nodes.add(
        f"write@/parts/=enospc,once:{tmp_path / 'disk'}", f"write@/parts/=broken,once:{tmp_path / 'net'}"
    )
    ended(night())
    check_equal(tmp_path / "r", undisturbed)
    assert (tmp_path / "disk").exists()
    assert (tmp_path / "net").exists()
    assert len(node.reads) <= IMAGES + 2 * CHUNK


@pytest.mark.timeout(1800)
# Ray takes a node for dead after less than the first.
@pytest.mark.parametrize(
    "away_s", [pytest.param(20, marks=pytest.mark.slow), pytest.param(1200, marks=pytest.mark.soak)]
)
def test_fleet_that_is_away_for_a_while_ends_nothing(undisturbed, nodes, night, tmp_path, away_s):
    fleet = [nodes.add(SLOWLY), nodes.add(SLOWLY)]
    process = night()
    wait_until(lambda: all(node.done for node in fleet), process)
    for node in fleet:
        node.workers_do("decode=sleep:1.5")
        nodes.remove(node)
    time.sleep(away_s)
    assert process.poll() is None, process.communicate()
    new = nodes.add()
    wait_until(lambda: new.done, process)
    ended(process)
    check_equal(tmp_path / "r", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_half_of_the_nodes_lost_at_once(undisturbed, nodes, night, tmp_path, shape):
    fleet = [nodes.add(SLOWLY, gpus=int(shape == "gpu")) for _ in range(4)]
    process = night("--shape", shape)
    wait_until(lambda: all(node.reads for node in fleet), process)
    for node in fleet[:2]:
        nodes.remove(node)
    ended(process)
    check_equal(tmp_path / "r", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"), [("ray::MapBatches(queued_items)", "gpu"), ("ray::ChunkQueue", "cpu")]
)
def test_source_and_queue_are_replaced(undisturbed, nodes, night, tmp_path, name, shape):
    node = nodes.add(SLOWLY, gpus=int(shape == "gpu"))
    process = night("--shape", shape)
    wait_until(lambda: node.done, process)
    os.kill(wait_for_process(os.getpid(), name), signal.SIGKILL)
    ended(process)
    check_equal(tmp_path / "r", undisturbed)


@pytest.fixture
def own_archive(tmp_path):
    """An archive that the test may move away."""
    write_archive(tmp_path / "archive", IMAGES, seed=8, broken=True)
    return tmp_path / "archive"


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs mount namespaces, which only root may make")
def test_node_that_loses_the_mount_is_left_out_and_no_image_is_called_missing(
    own_archive, tiny_bundle, undisturbed, nodes, tmp_path
):
    arguments = command(own_archive, tiny_bundle, tmp_path / "r", *nodes.options)
    slowly = "decode=sleep:0.1"
    with nodes.mounting_node(slowly) as first, nodes.mounting_node(slowly) as second:
        process = start(arguments)
        try:
            wait_until(lambda: first.done or second.done, process)
            # One that works: a run of one actor has no other.
            blind, sound = (first, second) if first.done else (second, first)
            blind.lose(own_archive)
            done_before = len(blind.done)
            ended(process)
        finally:
            kill_with_descendants(process.pid)
    found = rows(tmp_path / "r").select(undisturbed.column_names).sort_by("image_sha256")
    assert Counter(found["reject_reason"].to_pylist())["not_found"] == 0
    unlike = ("image_uri",)
    expected = undisturbed.sort_by("image_sha256")
    assert found.drop_columns(unlike).equals(expected.drop_columns(unlike))
    # Images of the two chunks that it has in work may have been read before.
    assert len(blind.done) <= done_before + 2
    assert sound.done


@pytest.mark.parametrize(
    "shape", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("gpu", marks=pytest.mark.soak)]
)
def test_archive_that_is_moved_away_ends_the_run_and_nothing_untrue_is_committed(
    own_archive, tiny_bundle, nodes, tmp_path, shape
):
    node = nodes.add("decode=sleep:0.2", gpus=int(shape == "gpu"))
    arguments = command(own_archive, tiny_bundle, tmp_path / "r", "--shape", shape, *nodes.options)
    process = start(arguments)
    try:
        wait_until(lambda: node.reads, process)
        own_archive.rename(tmp_path / "elsewhere")
        _, errors = process.communicate(timeout=240)
    finally:
        kill_with_descendants(process.pid)
    assert process.returncode == 1, errors
    assert str(own_archive) in errors
    assert "Traceback" not in errors
    assert rows(tmp_path / "r").num_rows == 0
    (tmp_path / "elsewhere").rename(own_archive)
    node.workers_do()
    finish(arguments)
    scored = rows(tmp_path / "r")
    assert scored.num_rows == IMAGES
    assert "read" not in scored["reject_stage"].to_pylist()
