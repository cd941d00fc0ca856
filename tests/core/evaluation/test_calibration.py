import numpy as np
import pytest
from scipy.special import softmax

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.calibration import Calibration, fit_calibration


def drawn(count, seed=0):
    """Logits [N, 3] and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 3)) * (2.0, 1.5, 1.5)
    probabilities = softmax(logits, axis=1)
    return logits, (probabilities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)


def test_it_finds_what_was_done_to_the_logits():
    logits, labels = drawn(20_000)
    m, d = (logits[:, 1] + logits[:, 2]) / 2 - logits[:, 0], logits[:, 1] - logits[:, 2]
    # A network too modest about pneumonia and too sure of bacterial or viral, off the prior in both.
    modest, sure = m / 3 + 0.4, d * 2 - 0.6
    spoilt = np.stack([np.zeros(len(m)), modest + sure / 2, modest - sure / 2], axis=1)
    found = fit_calibration(spoilt + 5, labels)
    assert found.temperature == pytest.approx(1 / 3, rel=0.05)
    assert found.pneumonia_offset == pytest.approx(-0.4, abs=0.05)
    assert found.bacterial_scale / found.temperature == pytest.approx(1 / 2, rel=0.05)
    assert found.bacterial_offset / found.temperature == pytest.approx(0.3, abs=0.05)
    np.testing.assert_allclose(np.exp(found.log_probabilities(spoilt)), softmax(logits, axis=1), atol=0.03)


def test_calibrated_logits_stay_as_they_are():
    logits, labels = drawn(20_000)
    found = fit_calibration(logits, labels)
    np.testing.assert_allclose(np.exp(found.log_probabilities(logits)), softmax(logits, axis=1), atol=0.02)


def test_a_few_images_told_apart_without_error_give_no_certainties():
    labels = np.repeat([0, 1, 2], 5)
    probabilities = np.exp(fit_calibration(4 * np.eye(3)[labels], labels).log_probabilities(4 * np.eye(3)))
    assert probabilities.diagonal().min() > 0.9
    assert probabilities.max() < 0.9999


def test_copies_of_an_image_count_once():
    logits, labels = drawn(300)
    once = fit_calibration(logits, labels)
    copied = fit_calibration(np.tile(logits, (4, 1)), np.tile(labels, 4), 4)
    assert copied.temperature == pytest.approx(once.temperature, rel=1e-3)
    assert copied.bacterial_offset == pytest.approx(once.bacterial_offset, abs=1e-3)


def test_matrix_and_offset_are_the_map():
    calibration = Calibration(0.5, 0.3, 1.5, -0.2)
    logits, _ = drawn(10)
    folded = softmax((logits @ calibration.matrix + calibration.offset) / 0.5, axis=1)
    np.testing.assert_allclose(np.exp(calibration.log_probabilities(logits)), folded, atol=1e-12)


def test_it_needs_images():
    with pytest.raises(InvalidInput, match="validation images"):
        fit_calibration(np.zeros((0, 3)), [])
