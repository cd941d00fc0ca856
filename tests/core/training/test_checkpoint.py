"""The checkpoint of a training, and its format on disk, which an unfinished training must find again."""

import dataclasses
import json

import numpy as np
import pytest

from pneumonia_core.training.checkpoint import Checkpoint, InitialState, load_checkpoint, save_checkpoint
from pneumonia_core.training.history import NOT_BEGUN, EpochFigures, EpochProgress
from pneumonia_core.training.recipe import Recipe

FIGURES = {
    "epoch", "loss", "learning_rate", "images_per_s", "waited_for_data_s", "validation_loss",
    "auroc_pneumonia", "auroc_bacterial", "accuracy_three_class", "validation_s",
}  # fmt: skip
RECIPE = {
    "network", "weights", "image_size", "epochs", "batch_size", "train_from", "learning_rate",
    "warmup_epochs", "weight_decay", "label_smoothing",
    "dropout", "averaging", "precision", "patience", "seed",
}  # fmt: skip


def epoch(number, auroc):
    figures = EpochFigures(number, 0.5, 1e-3, 40.0, 0.1, 0.4, auroc, auroc, 0.8, 2.0)
    return dataclasses.replace(figures, log_loss_pneumonia=1 - auroc, log_loss_bacterial=1 - auroc)


@pytest.fixture
def checkpoint():
    """Two epochs, the first of which was the better one; a dozen arrays, whose order a name must keep."""
    arrays = [np.full((2, 2), number, np.float32) for number in range(12)]
    state = {
        f"{group}.{index:04}": array
        for group in ("classifier", "averaged")
        for index, array in enumerate(arrays)
    }
    initial = InitialState(Recipe(network="resnet18", patience=1), "layer3", "head", 40)
    return Checkpoint(initial, (epoch(1, 0.9), epoch(2, 0.8)), state, [array + 100 for array in arrays])


def test_a_loaded_checkpoint_is_the_saved_one(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.initial, loaded.history) == (checkpoint.initial, checkpoint.history)
    assert loaded.progress == NOT_BEGUN
    for name, array in checkpoint.state.items():
        np.testing.assert_array_equal(loaded.state[name], array)
    np.testing.assert_array_equal(
        loaded.classifier_weights, [checkpoint.state[f"classifier.{i:04}"] for i in range(12)]
    )
    np.testing.assert_array_equal(loaded.best, checkpoint.best)


def test_a_checkpoint_within_an_epoch_says_how_far_it_is(checkpoint, tmp_path):
    within = dataclasses.replace(checkpoint, progress=EpochProgress(40, 12.5, 39, 8.25, 0.5))
    save_checkpoint(tmp_path, within)
    assert load_checkpoint(tmp_path).progress == within.progress


def test_weights_to_release_are_the_best_where_patience_ran_out_else_the_last_average(checkpoint):
    assert checkpoint.released_weights()[3][0, 0] == 103
    recipe = dataclasses.replace(checkpoint.initial.recipe, patience=0)
    patient = dataclasses.replace(checkpoint, initial=dataclasses.replace(checkpoint.initial, recipe=recipe))
    assert patient.released_weights()[3][0, 0] == 3


def test_files_keep_the_names_of_the_first_version(checkpoint, tmp_path):
    """An unfinished training of the first version is resumed, so the names are written out here."""
    save_checkpoint(tmp_path, checkpoint)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.json", "state.npz"]
    document = json.loads((tmp_path / "state.json").read_text())
    assert set(document) == {"recipe", "first_stage", "fresh_from", "loaded_layers", "epoch", "history"}
    assert document["epoch"] == 2
    assert set(document["history"][0]) >= FIGURES
    assert set(document["recipe"]) >= RECIPE
    with np.load(tmp_path / "state.npz") as arrays:
        assert {"classifier.0000", "averaged.0011", "best.0000", "best.0011"} <= set(arrays.files)


def test_a_checkpoint_of_the_first_version_opens(checkpoint, tmp_path):
    """It has no more than the first version's recipe and figures; the rest are the defaults."""
    save_checkpoint(tmp_path, checkpoint)
    document = json.loads((tmp_path / "state.json").read_text())
    document["recipe"] = {name: value for name, value in document["recipe"].items() if name in RECIPE}
    document["history"] = [{name: figures[name] for name in FIGURES} for figures in document["history"]]
    (tmp_path / "state.json").write_text(json.dumps(document))
    loaded = load_checkpoint(tmp_path)
    assert loaded.initial == checkpoint.initial
    assert [figures.log_loss_pneumonia for figures in loaded.history] == [None, None]
