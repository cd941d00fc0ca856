"""Figures on the validation images during training."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL
from pneumonia_core.training.validation import (
    binary_tasks,
    confusion_counts,
    tempered_log_loss,
    validation_figures,
)


@pytest.fixture
def scored():
    """Labels [6], and probabilities [6, 3] with one viral image that looks bacterial."""
    labels = np.array([NORMAL, NORMAL, BACTERIAL, BACTERIAL, VIRAL, VIRAL])
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.1, 0.6, 0.3]]
    )
    return labels, probabilities


def test_figures_are_those_of_both_tasks(scored):
    labels, probabilities = scored
    figures = validation_figures(labels, np.log(probabilities) + 2, started=0.0)
    assert figures.auroc_pneumonia == 1.0
    # Of the four pairs of a bacterial and a viral image, one is in the wrong order.
    assert figures.auroc_bacterial == 0.75
    assert figures.accuracy_three_class == pytest.approx(5 / 6)
    truth = probabilities[np.arange(6), labels]
    assert figures.validation_loss == pytest.approx(-np.log(truth).mean())
    assert figures.auroc_pneumonia_se == 0
    assert figures.auroc_bacterial_se == pytest.approx(np.sqrt(2 * 0.125 / 2))
    share = probabilities[2:, 1] / probabilities[2:, 1:].sum(axis=1)
    expected = tempered_log_loss(np.array([1, 1, 0, 0], bool), np.log(share / (1 - share)))
    assert figures.log_loss_bacterial == pytest.approx(expected)


def test_images_of_unknown_kind_count_for_pneumonia_only(scored):
    labels, probabilities = scored
    unknown = labels.copy()
    unknown[5] = PNEUMONIA_UNKNOWN_KIND
    figures = validation_figures(unknown, np.log(probabilities), started=0.0)
    assert (figures.auroc_bacterial, figures.accuracy_three_class) == (1.0, 1.0)
    truth = [*probabilities[np.arange(5), labels[:5]], 0.9]
    assert figures.validation_loss == pytest.approx(-np.log(truth).mean())
    assert binary_tasks(unknown, probabilities)["bacterial vs viral"].truth.tolist() == [True, True, False]
    assert confusion_counts(unknown, probabilities).tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 1]]


def test_without_known_kinds_there_are_no_figures_of_the_kind(scored):
    labels, probabilities = scored
    unknown = np.where(labels == NORMAL, NORMAL, PNEUMONIA_UNKNOWN_KIND)
    figures = validation_figures(unknown, np.log(probabilities), started=0.0)
    assert figures.auroc_pneumonia == 1.0
    assert figures.auroc_bacterial is figures.auroc_bacterial_se is figures.log_loss_bacterial is None
    assert figures.accuracy_three_class is None
    assert list(binary_tasks(unknown, probabilities)) == ["pneumonia vs normal"]


def test_being_too_sure_alone_does_not_raise_the_log_loss():
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-odds))
    calm, sure = tempered_log_loss(truth, odds), tempered_log_loss(truth, 4 * odds)
    assert sure == pytest.approx(calm, rel=1e-3)
    signed = np.where(truth, odds, -odds)
    best = minimize_scalar(lambda scale: np.logaddexp(0, -signed * scale).mean(), bounds=(0.1, 9)).fun
    assert calm == pytest.approx(best, rel=1e-3)
    assert tempered_log_loss(truth, odds + rng.normal(0, 1, 4000)) > 1.01 * calm


def test_perfectly_separated_images_give_no_certainty():
    assert 0 < tempered_log_loss(np.array([True, False]), np.array([1.0, -1.0])) < np.log(2)


def test_second_task_leaves_out_normal_images(scored):
    tasks = binary_tasks(*scored)
    assert tasks["pneumonia vs normal"].truth.tolist() == [False, False, True, True, True, True]
    assert tasks["bacterial vs viral"].truth.tolist() == [True, True, False, False]


def test_confusion_counts_the_most_probable_class(scored):
    assert confusion_counts(*scored).tolist() == [[2, 0, 0], [0, 2, 0], [0, 1, 1]]
