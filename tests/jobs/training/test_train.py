import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from jobs.training.train import make_request
from jobs.training.train import train as run_request
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.training_images import read_training_images
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.findings import NORMAL
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.training.loss import ClassWeights

SMALL = {"network": "resnet18", "weights": "none", "image_size": 32, "batch_size": 8}


def train(**options):
    return run_request(make_request(**options))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_labelled(folder, 15, 1, size=(64, 80), test_fraction=0)
    return folder


@pytest.fixture(scope="module")
def parts(data):
    """The images that it trains on, and those that it holds back."""
    return split_training(read_labelled(str(data)))


@pytest.fixture(scope="module")
def trained(ray_here, data, tmp_path_factory):
    """A training of two workers and two epochs, and the folder of its models."""
    models = tmp_path_factory.mktemp("models")
    return train(
        data=str(data),
        models=str(models),
        workers=2,
        epochs=2,
        ages="2,4",
        coverage=0.8,
        mirror=True,
        **SMALL,
    ), models


def test_two_workers_train_a_bundle_that_scores(trained, parts):
    from pneumonia_core.bundles.choice import load_engine

    result, models = trained
    bundle = open_bundle(result["bundle"])
    assert bundle.model_id == result["model_id"]
    assert Path(result["bundle"]).parent == models
    scores = load_engine(bundle, "openvino")(np.zeros((3, 32, 32), np.uint8))
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=1e-3)
    assert result["state"] == "done"
    assert result["epochs"] == 2
    assert result["images_per_s"] > 0
    assert result["validation"]["images"] == len(parts[1])
    assert 0 <= result["validation"]["auroc_pneumonia_vs_normal"] <= 1


def test_the_bundle_tells_how_it_was_trained(trained, parts):
    folder = Path(trained[0]["bundle"])
    document = json.loads((folder / "bundle.json").read_text())
    assert document["conformal"]["coverage"] == 0.8
    assert document["mirror"] is True
    training = document["training"]
    assert training["recipe"]["epochs"] == 2
    assert training["first_trained_stage"] == "conv1"
    assert [epoch["epoch"] for epoch in training["history"]] == [1, 2]
    card = (folder / "MODEL_CARD.md").read_text()
    assert "not a medical device" in card.lower()
    assert training["class_weights"] == asdict(ClassWeights.balanced([image.label for image in parts[0]]))
    for name, weight in training["class_weights"].items():
        assert f"{name} {weight:.3f}" in card
    assert json.loads((folder / "evaluation.json").read_text())["images"] == len(parts[1])
    assert training["weights_sha256"] is None
    seen = read_training_images(open_bundle(folder))
    assert [seen.training, seen.validation] == [
        {hashlib.sha256(Path(image.uri.removeprefix("file://")).read_bytes()).hexdigest() for image in part}
        for part in parts
    ]


def test_the_bundle_knows_the_domain_of_its_training(trained):
    folder = Path(trained[0]["bundle"])
    domain = json.loads((folder / "bundle.json").read_text())["domain"]
    assert domain["ages_years"] == [2.0, 4.0]
    assert domain["threshold"] > 0
    assert trained[0]["validation"]["out_of_domain"] <= 0.05


@pytest.mark.parametrize("ages", ["5", "5,1", "one,five", "-1,5", "1,nan", "1,inf"])
def test_ages_that_are_no_range_are_refused(ages, tmp_path):
    with pytest.raises(InvalidInput, match="ages"):
        train(data=str(tmp_path), models=str(tmp_path), ages=ages)


def test_tensorboard_reads_the_scalars_of_every_epoch(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, models = trained
    events = EventAccumulator(str(models / "tensorboard" / result["run"]))
    events.Reload()
    for tag in ("loss", "learning_rate", "auroc_pneumonia", "auroc_bacterial", "images_per_s"):
        assert [event.step for event in events.Scalars(tag)] == [1, 2]


def test_tensorboard_shows_inputs_confusion_and_curves(trained, parts):
    import io

    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    result, models = trained
    events = EventAccumulator(str(models / "tensorboard" / result["run"]))
    events.Reload()
    (inputs,) = events.Images("inputs")
    # A batch of eight on two workers: four images of 32 px, two by two with a gap.
    assert Image.open(io.BytesIO(inputs.encoded_image_string)).size == (68, 68)
    assert [event.step for event in events.Images("confusion")] == [1, 2]
    ill = sum(image.label != NORMAL for image in parts[1])
    for name, images in (("pneumonia vs normal", len(parts[1])), ("bacterial vs viral", ill)):
        curves = events.Tensors(f"{name}/pr_curves")
        assert [event.step for event in curves] == [1, 2]
        counts = make_ndarray(curves[0].tensor_proto)
        np.testing.assert_array_equal(counts[:4].sum(axis=0), images)
        assert counts[5, 0] == 1


@pytest.mark.slow
def test_a_set_that_does_not_say_the_kinds_is_trained_with(ray_here, data, tmp_path, capsys):
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["uri", "label", "patient_id", "split"])
        for image in read_labelled(str(data)):
            label = "normal" if image.label == NORMAL else "pneumonia"
            rows.writerow([image.uri, label, image.patient_id, "train"])
    result = train(
        data=str(tmp_path / "labels.csv"),
        models=str(tmp_path / "m"),
        workers=1,
        epochs=1,
        **SMALL,
    )
    assert result["validation"]["auroc_bacterial_vs_viral"] is None
    assert 0 <= result["validation"]["auroc_pneumonia_vs_normal"] <= 1
    training = json.loads((Path(result["bundle"]) / "bundle.json").read_text())["training"]
    assert (training["class_weights"]["bacterial"], training["class_weights"]["viral"]) == (0, 0)
    assert training["history"][0]["auroc_bacterial"] is None
    assert "bacterial and viral of this bundle mean pneumonia" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_without_a_fold_each_are_one_bundle(ray_here, data, tmp_path):
    result = train(data=str(data), models=str(tmp_path), workers=1, epochs=1, folds=2, **SMALL)
    bundle = open_bundle(result["bundle"])
    assert bundle.spec.members == 2
    everything = len(read_labelled(str(data)))
    assert result["validation"]["images"] == everything
    training = json.loads((Path(result["bundle"]) / "bundle.json").read_text())["training"]
    assert [(epoch["fold"], epoch["epoch"]) for epoch in training["history"]] == [(0, 1), (1, 1)]
    assert sum(training["images"].values()) == everything
    seen = read_training_images(bundle)
    assert [len(seen.training), len(seen.validation)] == [everything, 0]
    assert "by folds" in (Path(result["bundle"]) / "MODEL_CARD.md").read_text()


def test_a_finished_training_is_not_repeated_when_resumed(trained, data):
    result, models = trained
    options = {**SMALL, "ages": "2,4", "coverage": 0.8, "mirror": True}
    again = train(data=str(data), models=str(models), workers=2, epochs=2, resume=True, **options)
    assert again == result
    assert len(list(models.glob("resnet18-*"))) == 1


def test_gpus_that_tensorflow_does_not_see_are_refused(unseen_gpu, data, tmp_path):
    with pytest.raises(InvalidInput) as refused:
        train(data=str(data), models=str(tmp_path), gpus=1, epochs=1, **SMALL)
    assert refused.value.remedy is Remedy.INSTALL_GPU


@pytest.mark.slow
def test_an_error_that_would_come_again_ends_the_training_at_once_and_clearly(ray_here, data, tmp_path):
    """The file is an .npz, so only a worker sees that nothing in it fits."""
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    options = {**SMALL, "weights": str(tmp_path / "other.npz")}
    with pytest.raises(InvalidInput, match=r"other\.npz"):
        train(data=str(data), models=str(tmp_path), workers=2, epochs=1, **options)


def test_what_cannot_be_trained_is_refused_before_anything_starts(data, tmp_path):
    for wrong, what in (
        ({"data": str(tmp_path / "absent")}, "absent"),
        ({"weights": "absent.npz"}, r"absent\.npz"),
        ({"weights": "imagenet"}, "resnet18"),
        ({"image_size": 8}, "32"),
        ({"train_from": "layer3"}, "conv1"),
    ):
        options = {"data": str(data), "models": str(tmp_path / "m"), **SMALL, **wrong}
        with pytest.raises(InvalidInput, match=what):
            train(**options)
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_diverged_training_says_what_to_change(ray_here, data, tmp_path):
    with pytest.raises(PneumoniaError, match="Lower --learning-rate"):
        train(data=str(data), models=str(tmp_path), workers=1, epochs=1, learning_rate=1e30, **SMALL)
