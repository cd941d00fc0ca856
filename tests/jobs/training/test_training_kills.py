"""Trainings that lose a worker, a node or their command end as an undisturbed training does."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.clusters import Rules
from support.paths import REPOSITORY
from support.processes import descendants, kill_with_descendants

from pneumonia_core.phantoms.data_sets import write_labelled

# Each of three deaths may come an epoch later than it is meant to.
EPOCHS = 6
CHECKPOINT_S = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_labelled(folder, 40, 2, size=(64, 80), test_fraction=0)
    return folder


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """The failpoints of the workers."""
    rules = Rules(tmp_path_factory.mktemp("rules") / "rules")
    rules.set()
    return rules


@pytest.fixture(scope="module")
def nodes(rules):
    """Two nodes of one CPU each, and a head without any, as a cluster should have: it can lose a node.

    A worker with one thread, alone, comes to the same sums every time, so that trainings can be compared.
    """
    from ray.cluster_utils import Cluster

    from pneumonia_core.system.failpoints import VARIABLE

    os.environ[VARIABLE] = rules.variable
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    del os.environ[VARIABLE]
    yield cluster
    cluster.shutdown()


@pytest.fixture
def command(data, nodes, tmp_path):
    def command(*options):
        return [
            *(sys.executable, "-m", "jobs.train", "--data", str(data), "--models", str(tmp_path)),
            *("--network", "resnet18", "--weights", "none", "--image-size", "32", "--batch-size", "8"),
            *("--workers", "1", "--precision", "float32", "--epochs", str(EPOCHS), "--name", "t"),
            *("--checkpoint-minutes", str(CHECKPOINT_S / 60), "--address", nodes.address, *options),
        ]

    return command


@contextlib.contextmanager
def begun(command):
    """A training, ended with the block if it has not ended."""
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        kill_with_descendants(process.pid)
        process.communicate()


def wait_for_line(process, *starts):
    """Reads the lines of a training up to one that begins as one of these."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(starts):
            return "".join(lines)
    raise AssertionError(f"ended without a line {starts!r}: {lines}")


def wait_for_epoch(process, first=1):
    """Reads until an epoch has ended, the first one or a later one, and gives the training time to go on."""
    said = wait_for_line(process, *(f"epoch {number} of" for number in range(first, EPOCHS + 1)))
    time.sleep(random.Random(said).uniform(0.5, 1.0))
    return said


def find_worker(cluster):
    """The node on which the training worker is, and its pid."""
    for node in cluster.worker_nodes:
        for pid, name in descendants(node.all_processes["raylet"][0].process.pid).items():
            if "RayTrainWorker" in name:
                return node, pid
    raise AssertionError("no node has a training worker")


def check_ends_as_if_undisturbed(output, undisturbed):
    bundle = Path(json.loads(output.splitlines()[-1])["bundle"])
    history = json.loads((bundle / "bundle.json").read_text())["training"]["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
    for name in ("learning_rate", "loss", "auroc_pneumonia", "auroc_bacterial"):
        ended, expected = ([epoch[name] for epoch in epochs] for epochs in (history, undisturbed))
        assert ended == pytest.approx(expected, abs=0.01), name


@pytest.fixture(scope="module")
def undisturbed(data, nodes, tmp_path_factory):
    """The figures of each epoch of a training to which nothing happens."""
    script = (
        "import json, sys; from jobs.ray_runtime.session import ray_session\n"
        "from jobs.training.train import make_request, train\n"
        f"with ray_session({nodes.address!r}):\n"
        f"    request = make_request(data={str(data)!r}, models={str(tmp_path_factory.mktemp('models'))!r}, "
        "workers=1, network='resnet18', weights='none', image_size=32, batch_size=8, precision='float32', "
        f"epochs={EPOCHS})\n"
        "    result = train(request)\n"
        "print(json.dumps(result))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bundle = Path(json.loads(done.stdout.splitlines()[-1])["bundle"])
    return json.loads((bundle / "bundle.json").read_text())["training"]["history"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_that_loses_a_worker_a_node_and_its_command_ends_as_if_undisturbed(
    command, undisturbed, nodes, rules, tmp_path
):
    """One after the other in one training: a training of its own for each would take minutes longer.

    The worker dies in the first epoch. It waits before, so that a checkpoint is due, and again, so that Ray
    Train has seen it.
    """
    steps, once = tmp_path / "steps", [tmp_path / name for name in ("due", "seen", "dead")]
    rules.set(
        f"step=log:{steps}",
        f"step@step 6.=sleep:{CHECKPOINT_S},once:{once[0]}",
        f"step@step 20.=sleep:5,once:{once[1]}",
        f"step@step 21.=kill,once:{once[2]}",
    )
    lost = "workers were lost: training goes on after "
    with begun(command()) as process:
        said = wait_for_line(process, lost).splitlines()[-1]
        wait_for_epoch(process)
        taken = [int(line.strip("step .")) for line in steps.read_text().splitlines()]
        again = taken[taken.index(21) + 1]
        assert said == f"{lost}step {again - 1} of epoch 1"
        assert 6 < again <= 21
        rules.set()
        node, _ = find_worker(nodes)
        nodes.remove_node(node, allow_graceful=False)
        wait_for_line(process, lost)
        # An epoch is shown before Ray Train has heard of its checkpoint: that of the first is safe by then.
        wait_for_epoch(process, first=3)
        assert process.poll() is None
    refused = subprocess.run(command(), cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = subprocess.run(command("--resume"), cwd=REPOSITORY, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after " in resumed.stderr
    assert "epoch 1 of" not in resumed.stderr
    check_ends_as_if_undisturbed(resumed.stdout, undisturbed)
