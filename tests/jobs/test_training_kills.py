"""Trainings that lose a worker, a node or their command in the middle of an epoch end as an undisturbed one does."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pneumonia_core.phantoms import write_labelled
from tests.jobs.processes import descendants, kill_with_descendants

ROOT = Path(__file__).parents[2]
EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_labelled(folder, 40, 2, size=(64, 80), test_fraction=0)
    return folder


def command(data, models, *options):
    return [
        *(sys.executable, "-m", "jobs.train", "--data", str(data), "--models", str(models)),
        *("--network", "resnet18", "--weights", "none", "--image-size", "32", "--batch-size", "8"),
        # One worker sees the images in the same order every time; of several, which one sees which is left to chance.
        *("--workers", "1", "--precision", "float32", "--epochs", str(EPOCHS), "--name", "t", *options),
    ]


def begin(*arguments):
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_epoch(process, epoch):
    """Reads the lines of a training until it tells of this epoch, and gives it time to be in the next."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(f"epoch {epoch} "):
            time.sleep(random.Random(epoch).uniform(0.2, 1.0))
            return lines
    raise AssertionError(f"ended without epoch {epoch}: {lines}")


def epochs_of(output):
    bundle = Path(json.loads(output.splitlines()[-1])["bundle"])
    return json.loads((bundle / "bundle.json").read_text())["training"]["history"]


def check_ends_alike(history, undisturbed):
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
    for name in ("auroc_pneumonia", "auroc_bacterial"):
        assert history[-1][name] == pytest.approx(undisturbed[-1][name], abs=0.01)
    for name, tolerance in (("learning_rate", 1e-6), ("loss", 0.02)):
        ended, expected = ([epoch[name] for epoch in epochs] for epochs in (history, undisturbed))
        assert ended == pytest.approx(expected, rel=tolerance)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    done = subprocess.run(
        command(data, tmp_path_factory.mktemp("models")), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return epochs_of(done.stdout)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_training_goes_on(data, undisturbed, tmp_path):
    process = begin(data, tmp_path)
    try:
        lines = wait_for_epoch(process, 2)
        worker = next(pid for pid, name in descendants(process.pid).items() if "RayTrainWorker" in name)
        os.kill(worker, 9)
        output, rest = process.communicate(timeout=400)
    finally:
        kill_with_descendants(process.pid)
    said = "".join(lines) + rest
    assert process.returncode == 0, said
    assert "workers were lost: training goes on after epoch" in said
    check_ends_alike(epochs_of(output), undisturbed)


def node_with_worker(nodes):
    import psutil

    for node in nodes:
        raylet = node.all_processes["raylet"][0].process
        workers = psutil.Process(raylet.pid).children(recursive=True)
        if any("RayTrainWorker" in " ".join(worker.cmdline()) for worker in workers):
            return node
    raise AssertionError("no node has a training worker")


@pytest.mark.slow
def test_a_killed_node_is_done_without_and_training_goes_on(data, undisturbed, tmp_path):
    from ray.cluster_utils import Cluster

    # The head has no CPU, as a cluster's head should: both nodes that train can be lost.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
        process = begin(data, tmp_path, "--address", cluster.address)
        try:
            lines = wait_for_epoch(process, 2)
            cluster.remove_node(node_with_worker(nodes), allow_graceful=False)
            output, rest = process.communicate(timeout=400)
        finally:
            kill_with_descendants(process.pid)
    finally:
        cluster.shutdown()
    said = "".join(lines) + rest
    assert process.returncode == 0, said
    assert "workers were lost: training goes on after epoch" in said
    check_ends_alike(epochs_of(output), undisturbed)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_resume(data, undisturbed, tmp_path):
    process = begin(data, tmp_path)
    try:
        wait_for_epoch(process, 2)
    finally:
        kill_with_descendants(process.pid)
        process.communicate()
    refused = subprocess.run(command(data, tmp_path), cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = subprocess.run(command(data, tmp_path, "--resume"), cwd=ROOT, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after epoch" in resumed.stderr
    assert "epoch 1 of 4" not in resumed.stderr
    check_ends_alike(epochs_of(resumed.stdout), undisturbed)
