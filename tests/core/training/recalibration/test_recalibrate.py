"""A bundle fitted to local images: the same network, other probabilities and findings."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.training_images import read_training_images
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.document import prevalence_evaluated
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import (
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    bacterial_share,
    p_pneumonia,
)
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.training.recalibration.recalibrate import LocalImages, LocalUse, recalibrate

HASHES = frozenset(hashlib.sha256(bytes([number])).hexdigest() for number in range(60))
LABELS = np.arange(60) % 3


@pytest.fixture(scope="module")
def images():
    return np.stack([phantom(number % 3, number, 5, (64, 64)) for number in range(60)])


def local_images(bundle, images, labels=LABELS, ages=()):
    scores = load_engine(bundle, "openvino", precision="float32")(images)
    scored = ScoredSet.of(labels, np.arange(60) // 2, scores.probabilities)
    ages = list(ages) or [None] * 60
    return LocalImages(scored, scores.domain, ages, HASHES, ParityImages(images[:32], labels[:32])), scores


@pytest.fixture(scope="module")
def recalibrated(guarded_bundle, images, tmp_path_factory):
    """The new bundle, and the local images' scores by the old one and by the new one."""
    local, before = local_images(guarded_bundle, images)
    use = LocalUse(sensitivity=0.8, prevalence=0.1)
    released = recalibrate(tmp_path_factory.mktemp("models"), guarded_bundle, local, use)
    bundle = open_bundle(released.bundle.path)
    return bundle, before, load_engine(bundle, "openvino", precision="float32")(images)


def test_new_bundle_is_another_model_and_the_old_one_stays(recalibrated, guarded_bundle):
    bundle, _, _ = recalibrated
    assert bundle.model_id != guarded_bundle.model_id
    assert open_bundle(guarded_bundle.path) == guarded_bundle
    assert all(engine.parity_passed for engine in bundle.engines.values())


def test_threshold_finds_as_many_as_are_wanted_and_no_larger_one_does(recalibrated):
    bundle, _, after = recalibrated
    ill = LABELS != NORMAL
    found = p_pneumonia(after.probabilities)[ill] >= np.float32(bundle.thresholds.pneumonia)
    assert found.sum() == np.ceil(0.8 * ill.sum())
    sensitivity = json.loads((bundle.path / "evaluation.json").read_text())["tasks"]["pneumonia_vs_normal"][
        "sensitivity"
    ]
    assert sensitivity["value"] == pytest.approx(0.8)
    assert sensitivity["low"] < 0.8 < sensitivity["high"]


def test_probabilities_hold_for_the_prevalence_and_rank_as_before(recalibrated):
    bundle, before, after = recalibrated
    # The network has random weights and knows little, so each image gets about the prevalence.
    assert 0.02 < p_pneumonia(after.probabilities).mean() < 0.3
    for score in (p_pneumonia, bacterial_share):
        order = np.argsort(score(before.probabilities), kind="stable")
        assert (np.diff(score(after.probabilities)[order]) > -1e-5).all()
    assert prevalence_evaluated(bundle.path / "evaluation.json") == 0.1


def test_guard_flags_few_of_the_local_images(recalibrated, guarded_bundle):
    bundle, before, after = recalibrated
    np.testing.assert_allclose(after.domain, before.domain, rtol=1e-3)
    assert (after.domain > bundle.domain.threshold).mean() <= 0.035
    # No image tells an age.
    assert bundle.domain.ages_years == guarded_bundle.domain.ages_years


def test_bundle_and_card_say_what_it_comes_from(recalibrated, guarded_bundle):
    bundle, _, _ = recalibrated
    assert bundle.document["training"]["recalibration"] == {
        "bundle": guarded_bundle.model_id, "images": 60, "patients": 30,
        "sensitivity": 0.8, "prevalence": 0.1,
    }  # fmt: skip
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert f"the network is that of the model {guarded_bundle.model_id}" in card
    assert "60 local images of 30 patients" in card
    assert "finds 80.0 % or more" in card
    assert "hold where 10.0 % of the images show pneumonia" in card
    assert "drawn by this package" in card
    assert read_training_images(bundle).validation == HASHES


@pytest.mark.slow
def test_images_of_unknown_kind_leave_the_kind_as_it_is_and_their_ages_count(
    guarded_bundle, images, tmp_path: Path
):
    labels = np.where(LABELS == NORMAL, NORMAL, PNEUMONIA_UNKNOWN_KIND)
    local, before = local_images(guarded_bundle, images, labels, [20.5, 64.0] * 30)
    bundle = recalibrate(tmp_path, guarded_bundle, local, LocalUse()).bundle
    after = load_engine(bundle, "openvino", precision="float32")(images)
    np.testing.assert_allclose(
        bacterial_share(after.probabilities), bacterial_share(before.probabilities), atol=1e-3
    )
    assert bundle.thresholds.bacterial == guarded_bundle.thresholds.bacterial
    assert bundle.domain.ages_years == (20.0, 64.0)
    assert bundle.spec.conformal is None


def test_images_of_one_class_are_refused(guarded_bundle, images, tmp_path):
    local, _ = local_images(guarded_bundle, images, np.full(60, NORMAL))
    with pytest.raises(InvalidInput, match="with and without pneumonia"):
        recalibrate(tmp_path, guarded_bundle, local, LocalUse())
