"""Calibration: two maps that make probabilities right and leave the rankings alone."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.metrics import log_loss, roc_auc_score

from pneumonia_core.calibration import UNCALIBRATED, Calibration, log_odds, log_probabilities
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.calibration import fit_calibration, fit_kind, fit_pneumonia
from pneumonia_core.findings import NORMAL, bacterial_share, p_pneumonia


def drawn(count, seed=0):
    """Log-odds [N, 2] and labels drawn from them."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=(count, 2)) * (3.0, 1.2) + (1.0, 0.5)
    ill, bacterial = (rng.random((count, 2)) < expit(odds)).T
    return odds, np.where(ill, np.where(bacterial, 1, 2), 0)


def logits_of(odds):
    return np.asarray(log_probabilities(odds)) + 5


def test_log_odds_say_the_same_as_softmax():
    logits = np.random.default_rng(0).normal(size=(50, 3)) * 4
    np.testing.assert_allclose(np.exp(log_probabilities(log_odds(logits))), softmax(logits, axis=1))


def test_it_finds_what_was_done_to_the_log_odds():
    odds, labels = drawn(20_000)
    # A network too modest about pneumonia and too sure of bacterial or viral, off the prior in both.
    spoilt = log_odds(logits_of(odds * (1 / 3, 2) + (0.4, -0.6)))
    found = fit_calibration(spoilt, labels)
    assert found.scales == pytest.approx((3, 1 / 2), rel=0.06)
    assert found.offsets == pytest.approx((-1.2, 0.3), abs=0.1)
    np.testing.assert_allclose(found.probabilities(spoilt), np.exp(log_probabilities(odds)), atol=0.03)


def test_calibrated_log_odds_stay_as_they_are():
    odds, labels = drawn(20_000)
    found = fit_calibration(odds, labels)
    np.testing.assert_allclose(found.probabilities(odds), UNCALIBRATED.probabilities(odds), atol=0.02)


@pytest.mark.parametrize("sureness", [0.3, 1.0, 3.0, 8.0])
def test_no_ranking_changes_however_sure_the_network_is_of_the_kind(sureness):
    odds, labels = drawn(4000)
    network = odds * (0.5, sureness) + (1, -1)
    probabilities = fit_calibration(network, labels).probabilities(network)
    ill = labels != NORMAL
    assert aurocs(labels, p_pneumonia(probabilities), bacterial_share(probabilities)[ill]) == pytest.approx(
        aurocs(labels, network[:, 0], network[ill, 1]), abs=1e-5
    )
    calibrated = fit_calibration(network, labels).calibrated(network)
    np.testing.assert_array_equal(np.argsort(calibrated, axis=0), np.argsort(network, axis=0))


def test_it_beats_the_maps_of_version_0_1_0_where_the_network_is_too_sure_of_the_kind():
    odds, labels = drawn(4000)
    network = odds * (0.5, 8) + (1, -1)
    now, before = fit_calibration(network, labels).probabilities(network), in_version_0_1_0(network, labels)
    ill = labels != NORMAL
    lost = roc_auc_score(ill, network[:, 0]) - roc_auc_score(ill, 1 - before[:, NORMAL])
    assert lost > 0.005  # the reason for two maps
    assert log_loss(labels, now) < log_loss(labels, before)


def test_it_is_as_good_as_the_maps_of_version_0_1_0_where_the_network_is_modest():
    odds, labels = drawn(4000)
    network = odds * (0.5, 0.7) + (1, -1)
    now, before = fit_calibration(network, labels).probabilities(network), in_version_0_1_0(network, labels)
    assert log_loss(labels, now) <= log_loss(labels, before) + 1e-3


def aurocs(labels, pneumonia, bacterial):
    ill = labels != NORMAL
    return roc_auc_score(ill, pneumonia), roc_auc_score(labels[ill] == 1, bacterial)


def in_version_0_1_0(odds, labels):
    """Probabilities [N, 3] by two scales and two offsets of differences between logits."""
    logits = logits_of(odds)
    m, d = (logits[:, 1] + logits[:, 2]) / 2 - logits[:, 0], logits[:, 1] - logits[:, 2]

    def log_p(parameters):
        a, s = np.exp(parameters[:2])
        ill, kind = a * m + parameters[2], s * d + parameters[3]
        return log_softmax(np.stack([0 * m, ill + kind / 2, ill - kind / 2], axis=1), axis=1)

    fitted = minimize(
        lambda x: -log_p(x)[np.arange(len(labels)), labels].sum() + np.square(x).sum() / 2, np.zeros(4)
    )
    return np.exp(log_p(fitted.x))


def test_images_of_an_unknown_kind_count_for_pneumonia_only():
    odds, labels = drawn(2000)
    unknown = np.where(np.arange(2000) % 2 == 0, labels, np.where(labels == NORMAL, NORMAL, 3))
    whole, partly = fit_calibration(odds, labels), fit_calibration(odds, unknown)
    assert partly.pneumonia_scale == pytest.approx(whole.pneumonia_scale, rel=1e-6)
    half = fit_calibration(odds[::2], labels[::2])
    assert partly.bacterial_scale == pytest.approx(half.bacterial_scale, rel=1e-6)


def test_the_map_of_the_kind_gives_the_kind_where_some_labels_are_wrong():
    odds, labels = drawn(40_000)
    wrong = np.random.default_rng(1).random(len(labels)) < np.where(labels == 2, 0.12, 0.02)
    labelled = np.where((labels != NORMAL) & wrong, 3 - labels, labels)
    scale, offset = fit_kind(odds * (1, 2), labelled, false_bacterial=0.12, false_viral=0.02)
    assert (scale, offset) == pytest.approx((1 / 2, 0), abs=0.05)
    of_labels, towards_bacterial = fit_kind(odds * (1, 2), labelled)
    assert of_labels < 0.45
    assert towards_bacterial > 0.1
    assert fit_pneumonia(odds, labelled) == pytest.approx(fit_pneumonia(odds, labels))


def test_a_few_images_told_from_each_other_without_error_give_no_certainties():
    labels = np.repeat([0, 1, 2], 5)
    found = fit_calibration(log_odds(4 * np.eye(3)[labels]), labels)
    probabilities = found.probabilities(log_odds(4 * np.eye(3)))
    assert probabilities.diagonal().min() > 0.85
    assert probabilities.max() < 0.9999


def test_a_network_that_is_wrong_keeps_a_ranking_of_its_own():
    odds, labels = drawn(500)
    assert min(fit_calibration(-odds, labels).scales) > 0


def test_copies_of_an_image_count_once():
    odds, labels = drawn(300)
    copies = np.tile(odds, (4, 1)), np.tile(labels, 4)
    assert fit_pneumonia(*copies, copies=4) == pytest.approx(fit_pneumonia(odds, labels), rel=1e-3)
    assert fit_pneumonia(*copies) != pytest.approx(fit_pneumonia(odds, labels), rel=1e-3)


def test_a_map_after_another_is_one_map():
    first, second = Calibration(2.0, 0.5, 0.25, -1.0), Calibration(0.5, 1.0, 3.0, 0.25)
    odds, _ = drawn(20)
    np.testing.assert_allclose(
        second.after(first).calibrated(odds), second.calibrated(first.calibrated(odds))
    )


def test_it_needs_images():
    with pytest.raises(InvalidInput, match="validation images"):
        fit_calibration(np.zeros((0, 2)), [])
