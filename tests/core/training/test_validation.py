"""Figures on the validation images during training."""

import numpy as np
import pytest

from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL
from pneumonia_core.training.validation import binary_tasks, confusion_counts, validation_figures


@pytest.fixture
def scored():
    """Labels [6], and probabilities [6, 3] with one viral image that looks bacterial."""
    labels = np.array([NORMAL, NORMAL, BACTERIAL, BACTERIAL, VIRAL, VIRAL])
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.1, 0.6, 0.3]]
    )
    return labels, probabilities


def test_figures_are_those_of_both_tasks(scored):
    figures = validation_figures(*scored, started=0.0)
    assert figures.auroc_pneumonia == 1.0
    # Of the four pairs of a bacterial and a viral image, one is in the wrong order.
    assert figures.auroc_bacterial == 0.75
    assert figures.accuracy_three_class == pytest.approx(5 / 6)
    truth = scored[1][np.arange(6), scored[0]]
    assert figures.validation_loss == pytest.approx(-np.log(truth).mean())


def test_second_task_leaves_out_normal_images(scored):
    tasks = binary_tasks(*scored)
    assert tasks["pneumonia vs normal"].truth.tolist() == [False, False, True, True, True, True]
    assert tasks["bacterial vs viral"].truth.tolist() == [True, True, False, False]


def test_confusion_counts_the_most_probable_class(scored):
    assert confusion_counts(*scored).tolist() == [[2, 0, 0], [0, 2, 0], [0, 1, 1]]
