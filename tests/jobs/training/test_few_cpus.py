"""Trainings on clusters of few CPUs, and of more than their workers need: they end, whatever they start from.

Each has a Ray of its own, which takes half a minute: so each tells of what it started from, too.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.phantoms.data_sets import write_labelled


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_labelled(folder, 15, 1, size=(64, 80), test_fraction=0)
    return folder


@pytest.fixture(scope="module")
def train(data, tmp_path_factory):
    """Trains on a new Ray of so many CPUs; gives the result, and what was said."""

    def train(cpus, **options):
        options = {"network": "resnet18", "image_size": 32, "batch_size": 8, "data": str(data), **options}
        options["models"] = str(tmp_path_factory.mktemp("models"))
        script = (
            "import json\n"
            "from jobs.ray_runtime.session import ray_session\n"
            "from jobs.training.train import make_request, train\n"
            f"with ray_session('local', num_cpus={cpus}):\n"
            f"    result = train(make_request(**{options}))\n"
            "print(json.dumps(result))"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["state"] == "done"
        return result, done.stderr

    return train


@pytest.fixture(scope="module")
def from_trunk(train, tmp_path_factory):
    """Two workers on one CPU start from a trunk."""
    import keras

    from pneumonia_core.networks.classifier import build_classifier

    classifier = build_classifier("resnet18", 32)
    file = tmp_path_factory.mktemp("trunk") / "trunk.keras"
    keras.Model(classifier.input, classifier.get_layer("features").output, name="resnet18").save(file)
    return train(1, workers=2, epochs=1, weights=str(file))


@pytest.mark.slow
def test_loaded_trunk_gets_a_fitted_head_first(from_trunk, data):
    result, said = from_trunk
    training, _ = split_training(read_labelled(str(data)))
    # Each of two workers has as many.
    even = len(training) // 2 * 2
    assert f"a head fitted to the features of {even} images" in said
    assert result["epochs"] == 1


@pytest.mark.slow
def test_bundle_of_ours_goes_on_with_its_own_head(train, from_trunk):
    """Two workers on four CPUs."""
    bundle = Path(from_trunk[0]["bundle"])
    result, said = train(4, workers=2, epochs=1, weights=str(bundle / "model.keras"))
    assert "layers from" in said
    assert "a head fitted" not in said
    assert result["epochs"] == 1


@pytest.mark.slow
def test_training_without_a_better_epoch_ends_and_keeps_the_best(train):
    """One worker on one CPU."""
    options = {"weights": "none", "learning_rate": 0.0, "precision": "float32"}
    # So that the statistics of normalisation settle at once: they alone move.
    options["averaging"] = 0.5
    result, said = train(1, workers=1, epochs=9, patience=1, **options)
    ended = re.search(r"no better epoch since epoch (\d+)", said)
    assert ended, said
    best = int(ended[1])
    # Four validation images are too few for a standard error.
    assert re.search(r"that is kept: validation AUROC [\d.]+ pneumonia", said)
    assert result["epochs"] == best + 1
    history = json.loads((Path(result["bundle"]) / "bundle.json").read_text())["training"]["history"]
    # The figures of the bundle are those of the weights that are kept; calibration leaves this one as it is.
    assert result["validation"]["auroc_bacterial_vs_viral"] == pytest.approx(
        history[best - 1]["auroc_bacterial"], abs=1e-6
    )
