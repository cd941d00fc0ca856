"""What a released bundle tells of itself, and what it is fitted on.

The numbers of images are multiples of a batch: Keras takes seconds to trace a network for another size.
"""

import dataclasses
import json

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.fold_odds import odds_of_one_array

from pneumonia_core import __version__
from pneumonia_core.bundles.bundle import compute_model_id, open_bundle
from pneumonia_core.calibration import Calibration, log_odds
from pneumonia_core.datasets.kermany import WRONG_KINDS
from pneumonia_core.evaluation.calibration import fit_kind
from pneumonia_core.evaluation.thresholds import choose_thresholds
from pneumonia_core.findings import NORMAL, PNEUMONIA_UNKNOWN_KIND, Conformal
from pneumonia_core.networks.classifier import build_classifier
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.training.augment import STRENGTHS, vary
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.release import HARDER, Provenance, release


def test_model_card_names_the_model_and_the_version_that_made_it(guarded_bundle):
    card = (guarded_bundle.path / "MODEL_CARD.md").read_text()
    assert f"\n# Model card: resnet18 {guarded_bundle.model_id}\n" in card
    assert f"Made with pneumonia-scoring {__version__}." in card
    assert "Each map was fitted on validation on its own" in card


def test_bundle_keeps_its_calibration_and_the_cuts_of_its_findings_sets(guarded_bundle):
    document = json.loads((guarded_bundle.path / "bundle.json").read_text())
    spec = open_bundle(guarded_bundle.path).spec
    assert spec.calibration == Calibration(**document["calibration"])
    assert spec.conformal == Conformal(**document["conformal"])
    assert spec.conformal.coverage == 0.9
    figures = json.loads((guarded_bundle.path / "evaluation.json").read_text())["findings_sets"]
    # On the images that the cuts were fitted on, more than the level by one image at most, or by ties.
    assert all(measure["value"] >= 0.9 for measure in figures["covered"].values())


def test_what_changes_a_score_or_a_findings_set_changes_the_model_id(guarded_bundle):
    model = keras.saving.load_model(guarded_bundle.path / "model.keras", safe_mode=True)
    spec = guarded_bundle.spec
    others = [
        dataclasses.replace(spec, calibration=Calibration(1.0, 0.0, 1.0, 0.0)),
        dataclasses.replace(spec, conformal=None),
        dataclasses.replace(spec, mirror=True),
        dataclasses.replace(spec, smoothing=0.0),
    ]
    assert len({compute_model_id(model, other) for other in (spec, *others)}) == 5


@pytest.mark.slow
def test_network_that_knows_no_kinds_and_no_filter_is_released_as_such(tmp_path):
    keras.utils.set_random_seed(0)
    classifier = build_classifier("resnet18", 32)
    images = np.stack([phantom(number % 2, number, 0, (32, 32)) for number in range(128)])
    labels = np.where(np.arange(128) % 2 == 0, NORMAL, PNEUMONIA_UNKNOWN_KIND)
    validation = ValidationSet(ImageParts.of(images[64:]), labels[64:], np.arange(64))
    provenance = Provenance("none", "synthetic", "none", {"note": "fixed random weights"})
    released = release(tmp_path, [classifier], images[:64], validation, provenance, smoothing=0.0)
    spec = open_bundle(released.bundle.path).spec
    assert (spec.smoothing, spec.thresholds.bacterial, spec.conformal) == (0.0, 0.5, None)
    assert (spec.calibration.bacterial_scale, spec.calibration.bacterial_offset) == pytest.approx((1, 0))
    odds = log_odds(classifier.predict_on_batch(images[64:].astype(np.float32)))[:, 0]
    auroc = roc_auc_score(labels[64:] != NORMAL, odds)
    assert released.headline()["auroc_pneumonia_vs_normal"] == pytest.approx(auroc, abs=1e-6)
    assert released.headline()["auroc_bacterial_vs_viral"] is None
    assert "smooths a little" not in (released.bundle.path / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_members_of_folds_are_judged_on_the_images_that_they_were_not_trained_on(tmp_path):
    keras.utils.set_random_seed(0)
    members = [build_classifier("resnet18", 32) for _ in range(2)]
    images = np.stack([phantom(number % 3, number, 0, (32, 32)) for number in range(64)])
    labels, folds = np.arange(64) % 3, np.arange(64) // 32
    provenance = Provenance("none", "kermany", "none", {"note": "fixed random weights"})
    released = release(
        tmp_path,
        members,
        images[32:],
        ValidationSet(ImageParts.of(images), labels, np.arange(64), folds),
        provenance,
        mirror=True,
        strength=STRENGTHS["none"],
    )
    assert (released.bundle.spec.members, released.bundle.spec.mirror) == (2, True)
    odds = odds_of_one_array(members, images, folds)
    calibration = released.bundle.spec.calibration
    of_kind = fit_kind(odds, labels, *WRONG_KINDS["kermany"])
    assert (calibration.bacterial_scale, calibration.bacterial_offset) == pytest.approx(of_kind, abs=1e-4)
    still, rng = STRENGTHS["none"], np.random.default_rng(2)
    harder = dataclasses.replace(HARDER, flip=False)
    varied = [odds_of_one_array(members, vary(images, some, rng), folds) for some in (still, still, harder)]
    assert np.abs(varied[2] - odds).mean() > 10 * np.abs(varied[1] - odds).mean()
    chosen = choose_thresholds(np.tile(labels, 3), calibration.probabilities(np.concatenate(varied)), 3)
    assert dataclasses.astuple(released.bundle.spec.thresholds) == pytest.approx(
        dataclasses.astuple(chosen), abs=1e-4
    )
    figures = released.evaluation["tasks"]["pneumonia_vs_normal"]
    assert figures["auroc"]["value"] == pytest.approx(roc_auc_score(labels != NORMAL, odds[:, 0]), abs=1e-6)
    assert all(report.parity_passed for report in released.bundle.engines.values())
    assert "averages the log-odds of 2 networks" in (released.bundle.path / "MODEL_CARD.md").read_text()
