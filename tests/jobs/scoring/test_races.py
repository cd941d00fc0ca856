"""Two runs at once on one table, and machines that die: rows exactly once."""

import os
import time
from pathlib import Path

import pytest
from support.clusters import Rules
from support.processes import kill_with_descendants
from support.runs_killed import CHUNK, IMAGES, check_equal, command, reads, start
from support.scoring import pneumonia, pneumonia_here

from pneumonia_core.system.failpoints import VARIABLE


def race(arguments: list[object], undisturbed, results: Path) -> None:
    """The same command twice at once: one scores, the other says who does, and ends right when run again."""
    rule = {VARIABLE: "save.before@staged=sleep:6"}
    both = [start(arguments, **rule) for _ in range(2)]
    try:
        ends = [process.communicate(timeout=180) for process in both]
    finally:
        for process in both:
            kill_with_descendants(process.pid)
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], ends
    loser = next(errors for process, (_, errors) in zip(both, ends, strict=True) if process.returncode)
    assert "is at work" in loser
    assert "Traceback" not in loser
    again = pneumonia_here(*arguments)
    assert again.returncode == 0, again.stderr
    check_equal(results, undisturbed)


def test_two_runs_at_once_end_with_every_row_once(archive, tiny_bundle, undisturbed, cluster, tmp_path):
    race(command(archive, tiny_bundle, tmp_path / "r", *cluster.options), undisturbed, tmp_path / "r")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_races(archive, tiny_bundle, undisturbed, cluster, tmp_path, report):
    for number in range(10):
        results = tmp_path / str(number)
        race(command(archive, tiny_bundle, results, *cluster.options), undisturbed, results)
        report.add("two runs at once", 0)


def test_run_at_work_is_left_alone_and_maintain_refused(archive, tiny_bundle, cluster, tmp_path):
    results = tmp_path / "r"
    arguments = command(archive, tiny_bundle, results, *cluster.options)
    process = start(arguments, **{VARIABLE: "plan.after=sleep:30"})
    try:
        while not list(results.glob("runs/.unfinished/*")):
            time.sleep(0.1)
        refused = pneumonia("maintain", results, "--compact")
        assert refused.returncode == 1
        assert "at work" in refused.stderr
    finally:
        kill_with_descendants(process.pid)
        process.communicate()


@pytest.fixture(scope="module")
def three_nodes(ray_here, worker_rules):
    from ray.cluster_utils import Cluster

    os.environ[VARIABLE] = worker_rules.variable
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 1, "include_dashboard": False}
    )
    try:
        yield cluster
    finally:
        del os.environ[VARIABLE]
        cluster.shutdown()


def node_death(
    archive: Path, bundle, undisturbed, nodes, rules: Rules, folder: Path, shape: str, delay_s: float
) -> int:
    """Three nodes, one killed while its actors score; the run ends by itself. Gives the images read again."""
    log = folder / "reads"
    rules.set("decode=sleep:0.05", f"decode=log:{log}")
    while len(nodes.worker_nodes) < 2:
        nodes.add_node(num_cpus=1, num_gpus=1)
    nodes.wait_for_nodes()
    arguments = command(archive, bundle, folder / "r", "--address", nodes.address, "--shape", shape)
    process = start(arguments, **{VARIABLE: ""})
    try:
        parts = folder / "r" / "runs"
        while not list(parts.glob("*/parts/*.parquet")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(delay_s)
        nodes.remove_node(sorted(nodes.worker_nodes, key=id)[0], allow_graceful=False)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    finally:
        kill_with_descendants(process.pid)
        rules.set()
    check_equal(folder / "r", undisturbed)
    return reads(log) - IMAGES


# On one CPU an actor has two chunks in work. In shape `gpu` it has a third one there, and what its node has
# decoded and not yet given on goes too: one that is being decoded, and one that waits.
LOST_WITH_A_NODE = {"cpu": 2 * CHUNK, "gpu": 5 * CHUNK}


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_node_that_dies_loses_and_repeats_no_row(
    archive, tiny_bundle, undisturbed, three_nodes, worker_rules, tmp_path, shape
):
    again = node_death(archive, tiny_bundle, undisturbed, three_nodes, worker_rules, tmp_path, shape, 0.3)
    assert again <= LOST_WITH_A_NODE[shape]


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_ten_nodes_die(archive, tiny_bundle, undisturbed, three_nodes, worker_rules, tmp_path, shape, report):
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        again = node_death(
            archive, tiny_bundle, undisturbed, three_nodes, worker_rules, folder, shape, number * 0.2
        )
        assert again <= LOST_WITH_A_NODE[shape]
        report.add(f"node killed, shape {shape}", again)
