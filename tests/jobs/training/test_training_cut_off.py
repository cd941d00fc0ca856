"""A training goes on without a machine that is cut off from the network."""

import json
import time
from pathlib import Path

import pytest
from support.machines import machine_cluster

from pneumonia_core.phantoms.data_sets import write_labelled

EPOCHS = 3


@pytest.mark.soak
def test_a_training_goes_on_from_its_last_checkpoint_without_a_node_that_is_cut_off(tmp_path):
    """Four minutes, of which one until Ray counts the node as lost."""
    data = tmp_path / "data"
    write_labelled(data, 40, 2, size=(64, 80), test_fraction=0)
    with machine_cluster(tmp_path) as machines:
        nodes = [machines.add() for _ in range(3)]
        process = machines.run(
            machines.head,
            [
                *(
                    "jobs.train",
                    "--data",
                    data,
                    "--models",
                    tmp_path / "models",
                    "--address",
                    machines.address,
                ),
                *("--network", "resnet18", "--weights", "none", "--image-size", 64, "--batch-size", 8),
                *("--workers", 2, "--precision", "float32", "--epochs", EPOCHS, "--name", "t"),
            ],
        )
        said = "".join(iter_until(process.stderr, "epoch 1 "))
        # By then the controller has seen the checkpoint, and the next epoch is under way.
        time.sleep(2.5)
        at_work = [node for node in nodes if node.runs("RayTrainWorker")]
        assert len(at_work) == 2, said
        at_work[0].machine.cut_off()
        output, rest = process.communicate(timeout=400)
    assert process.returncode == 0, said + rest
    assert "workers were lost: training goes on after epoch 1\n" in rest
    bundle = Path(json.loads(output.splitlines()[-1])["bundle"])
    history = json.loads((bundle / "bundle.json").read_text())["training"]["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))


def iter_until(lines, start):
    """The lines up to the first that starts so."""
    for line in lines:
        yield line
        if line.startswith(start):
            return
    raise AssertionError(f"no line {start!r}")
