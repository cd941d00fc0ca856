"""Two runs at once on one table, and machines that die: rows exactly once."""

import os
import signal
import time
from pathlib import Path

import pytest
from processes import kill_with_descendants
from scoring import last_json, pneumonia, rows
from test_kills import COLUMNS, IMAGES, check_equal, command, start

from pneumonia_core.failpoints import VARIABLE
from pneumonia_core.phantoms import write_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("races")
    write_archive(folder, IMAGES, seed=9, broken=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(archive, tiny_bundle, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    done = pneumonia(*command(archive, tiny_bundle, results))
    assert done.returncode == 0, done.stderr
    return rows(results).select(COLUMNS).sort_by("image_uri")


def race(archive: Path, bundle, undisturbed, results: Path) -> None:
    """The same command twice at once: one commits, the other says so, and ends right when run again."""
    # Both have planned before either commits.
    rule = {VARIABLE: "save.before@staged=sleep:6"}
    both = [start(command(archive, bundle, results), **rule) for _ in range(2)]
    try:
        ends = [process.communicate(timeout=180) for process in both]
    finally:
        for process in both:
            kill_with_descendants(process.pid)
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], ends
    loser = next(errors for process, (_, errors) in zip(both, ends, strict=True) if process.returncode)
    assert "another run committed" in loser
    assert "Traceback" not in loser
    again = pneumonia(*command(archive, bundle, results))
    assert again.returncode == 0, again.stderr
    check_equal(results, undisturbed)


def test_two_runs_at_once_end_with_every_row_once(archive, tiny_bundle, undisturbed, tmp_path):
    race(archive, tiny_bundle, undisturbed, tmp_path / "r")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_races(archive, tiny_bundle, undisturbed, tmp_path):
    for number in range(10):
        race(archive, tiny_bundle, undisturbed, tmp_path / str(number))


def test_run_at_work_is_left_alone_and_maintain_refused(archive, tiny_bundle, undisturbed, tmp_path):
    results = tmp_path / "r"
    process = start(command(archive, tiny_bundle, results), **{VARIABLE: "plan.after=sleep:20"})
    try:
        while not list(results.glob("runs/*/run.json")):
            time.sleep(0.1)
        refused = pneumonia("maintain", results, "--compact")
        assert refused.returncode == 1
        assert "at work" in refused.stderr
    finally:
        kill_with_descendants(process.pid)
        process.communicate()


def node_death(archive: Path, bundle, undisturbed, folder: Path, shape: str, delay_s: float) -> None:
    """Three nodes, one killed while its actors score; the run ends by itself."""
    from ray.cluster_utils import Cluster

    log = folder / "reads"
    rule = f"decode=sleep:0.05;decode=log:{log}"
    os.environ[VARIABLE] = rule
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        victims = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
    finally:
        del os.environ[VARIABLE]
    arguments = [*command(archive, bundle, folder / "r", "--address", cluster.address, "--shape", shape)]
    arguments.remove("--num-cpus")
    arguments.remove(2)
    process = start(arguments)
    try:
        parts = folder / "r" / "runs"
        while not list(parts.glob("*/parts/*.parquet")) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(delay_s)
        cluster.remove_node(victims[0], allow_graceful=False)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    finally:
        kill_with_descendants(process.pid)
        cluster.shutdown()
    check_equal(folder / "r", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_node_that_dies_loses_and_repeats_no_row(archive, tiny_bundle, undisturbed, tmp_path, shape):
    node_death(archive, tiny_bundle, undisturbed, tmp_path, shape, 0.3)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_ten_nodes_die(archive, tiny_bundle, undisturbed, tmp_path, shape):
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        node_death(archive, tiny_bundle, undisturbed, folder, shape, number * 0.3)


def test_committed_run_killed_before_its_last_record_only_gets_that_record(
    archive, tiny_bundle, undisturbed, tmp_path
):
    arguments = command(archive, tiny_bundle, tmp_path / "r")
    died = pneumonia(*arguments, **{VARIABLE: "commit.after=kill"})
    assert died.returncode == -signal.SIGKILL
    assert rows(tmp_path / "r").num_rows == IMAGES
    again = pneumonia(*arguments, **{VARIABLE: f"decode=log:{tmp_path / 'reads'}"})
    result = last_json(again)
    assert (again.returncode, result["version"], result["scored"] + result["rejected"]) == (0, 1, IMAGES)
    assert not (tmp_path / "reads").exists()
    check_equal(tmp_path / "r", undisturbed)
