"""A command on a cluster that has no node for it, and no autoscaler."""

import signal

import pytest
from support.nodes import node_cluster
from support.runs_killed import IMAGES, command, start
from support.scoring import last_json, pneumonia


@pytest.fixture
def nodes(ray_here, tmp_path):
    with node_cluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.slow
def test_deadline_ends_the_wait_and_leaves_all_to_the_next_run(archive, tiny_bundle, nodes, tmp_path):
    arguments = command(archive, tiny_bundle, tmp_path / "r", "--deadline", "12s", *nodes.options)
    done = pneumonia(*arguments)
    assert done.returncode == 0, done.stderr
    assert "waiting for the cluster to grow" in done.stderr
    assert (last_json(done)["scored"], last_json(done)["deferred"]) == (0, IMAGES)


@pytest.mark.slow
def test_sigterm_ends_the_wait(archive, tiny_bundle, nodes, tmp_path):
    process = start(command(archive, tiny_bundle, tmp_path / "r", *nodes.options))
    for line in process.stderr:
        if "waiting for the cluster to grow" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=25)
    assert process.returncode == 1, errors
    assert "stopped as requested" in errors


def test_gpus_that_no_autoscaler_can_add_are_refused_without_a_wait(archive, tiny_bundle, nodes, tmp_path):
    nodes.add()
    done = pneumonia(*command(archive, tiny_bundle, tmp_path / "r", "--shape", "gpu", *nodes.options))
    assert done.returncode == 2, done.stderr
    assert "no node of the cluster has a GPU" in done.stderr


def test_nodes_with_different_hash_keys_score_nothing(archive, tiny_bundle, nodes, tmp_path):
    """Some rows of a study would have another study_key than others, or none."""
    for key in ("pepper", "salt", None):
        nodes.add(hash_key=key)
    done = pneumonia(*command(archive, tiny_bundle, tmp_path / "r", *nodes.options))
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "PNEUMONIA_HASH_KEY" in line]
    assert line.count("one value on") == 2
    assert "none on" in line
    assert "pepper" not in done.stderr
    assert not list((tmp_path / "r").glob("runs/*/parts/*"))
