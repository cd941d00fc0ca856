"""`pneumonia train --dry-run`: it says what a training would do, and leaves nothing behind."""

import json
from collections import Counter

import pytest
from support.scoring import pneumonia_here

from jobs.training.dry_run.estimate import Work, estimate_memory, estimate_seconds
from jobs.training.dry_run.trial import Trial
from jobs.training.placement import TrainingPlacement
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.findings import LABELS
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.training.recipe import Recipe

TRIAL = Trial("float32", "layer3", 5.0, 0.5, 100.0, 50.0, 0, 2_000_000_000, None)


def test_dry_run_tells_counts_plan_memory_and_hours_and_writes_nothing(ray_here, tmp_path):
    data, models = tmp_path / "data", tmp_path / "models"
    write_labelled(data, 15, 1, size=(64, 80), test_fraction=0)
    before = sorted(tmp_path.rglob("*"))
    address = ray_here.get_runtime_context().gcs_address
    options = ["--data", data, "--models", models, "--network", "resnet18", "--weights", "none"]
    small = ["--image-size", 32, "--batch-size", 8, "--workers", 2, "--epochs", 3, "--address", address]
    done = pneumonia_here("train", *map(str, [*options, *small, "--dry-run"]))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    parts = dict(zip(("training", "validation"), split_training(read_labelled(str(data))), strict=True))
    assert result["state"] == "dry run"
    assert result["images"] == {
        name: Counter(LABELS[image.label] for image in part) for name, part in parts.items()
    }
    plan = result["plan"]
    assert (plan["workers"], plan["gpus_per_worker"], plan["batch_per_replica"]) == (2, 0, 4)
    assert (plan["steps_per_epoch"], plan["epochs"]) == (len(parts["training"]) // 8, 3)
    assert (plan["first_stage"], plan["precision"]) == ("conv1", "float32")
    assert result["memory_bytes"]["worker"] > 100e6
    assert result["hours"] == pytest.approx(sum(result["seconds"].values()) / 3600, abs=1e-3)
    assert result["seconds_per_step"] > 0
    assert "3 steps" in result["estimated_from"]
    assert f"training: {len(parts['training'])} images" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_hours_are_those_of_all_steps_images_and_networks():
    recipe = Recipe(batch_size=32, epochs=4)
    placement = TrainingPlacement(count=2, cpus=4, gpus=0, decode_cpus=1)
    once = estimate_seconds(recipe, Work(3200, 400, 100, 1, mirror=False), placement, TRIAL, cpus=9)
    assert once == {
        "decoding": 3600 / (50 * 9),
        "compiling": 5,
        "head": 3200 / 200,
        "training": 4 * 100 * 0.5,
        "validation": 4 * 400 / 200,
        "release": 8 * 400 / 100,
    }
    thrice = estimate_seconds(recipe, Work(3200, 400, 100, 3, mirror=False), placement, TRIAL, cpus=9)
    assert sum(thrice.values()) == pytest.approx(3 * sum(once.values()))
    fresh = estimate_seconds(
        Recipe(weights="none"), Work(3200, 400, 100, 1, mirror=True), placement, TRIAL, cpus=9
    )
    assert (fresh["head"], fresh["release"]) == (0, 2 * once["release"])


def test_only_the_object_store_grows_with_the_images():
    few, many, most = (
        estimate_memory(Recipe(image_size=100), Work(training, validation, 1, 1, mirror=False), TRIAL)
        for training, validation in ((1000, 100), (9000, 900), (90000, 9000))
    )
    assert [each.object_store for each in (few, many, most)] == [n * 100**2 for n in (1100, 9900, 99000)]
    assert few.worker == many.worker == most.worker
    # The guard is fitted on 2,000 images at most.
    assert few.driver < many.driver == most.driver
