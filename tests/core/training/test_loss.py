"""The loss of pneumonia and of its kind."""

import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax, logsumexp

from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL
from pneumonia_core.training.loss import ClassWeights, HierarchicalLoss

EVEN = ClassWeights(1.0, 1.0, 1.0, 1.0)
LABELS = np.array([NORMAL, BACTERIAL, VIRAL, PNEUMONIA_UNKNOWN_KIND, BACTERIAL, NORMAL], np.int32)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (len(LABELS), 3)).astype(np.float32)


def total(loss, labels, logits):
    return float(loss.total(keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(logits)))


def gradient(loss, labels, logits):
    import tensorflow as tf

    given = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss.total(tf.constant(labels), given)
    return tape.gradient(value, given).numpy()


def test_both_answers_to_a_question_weigh_the_same():
    labels = np.array([NORMAL] * 2 + [BACTERIAL] * 4 + [VIRAL] + [PNEUMONIA_UNKNOWN_KIND] * 3)
    weights = ClassWeights.balanced(labels)
    assert (weights.normal * 2, weights.pneumonia * 8) == pytest.approx((5, 5))
    assert (weights.bacterial * 4, weights.viral * 1) == pytest.approx((2.5, 2.5))


def test_without_any_known_kind_the_kind_weighs_nothing():
    weights = ClassWeights.balanced(np.array([NORMAL, PNEUMONIA_UNKNOWN_KIND]))
    assert (weights.bacterial, weights.viral) == (0, 0)
    labels = np.array([NORMAL, PNEUMONIA_UNKNOWN_KIND], np.int32)
    loss = HierarchicalLoss(weights, 0.0, 1.0, 0.0, 0.0)
    assert total(loss, labels, np.array([[9, 0, 0], [0, 9, 0]], np.float32)) == pytest.approx(0, abs=1e-3)


def test_without_smoothing_and_weights_it_is_the_cross_entropy_of_three_classes(logits):
    known = LABELS != PNEUMONIA_UNKNOWN_KIND
    loss = HierarchicalLoss(EVEN, 0.0, 1.0, 0.0, 0.0)
    expected = -log_softmax(logits[known].astype(np.float64), axis=1)[range(5), LABELS[known]].sum()
    assert total(loss, LABELS[known], logits[known]) == pytest.approx(expected, rel=1e-5)


def test_an_image_of_unknown_kind_says_only_that_there_is_pneumonia(logits):
    loss = HierarchicalLoss(EVEN, 0.0, 1.0, 0.2, 0.1)
    one, label = logits[:1], np.array([PNEUMONIA_UNKNOWN_KIND], np.int32)
    pneumonia = logsumexp(one[0, 1:]) - one[0, 0]
    assert total(loss, label, one) == pytest.approx(-np.log(expit(pneumonia)), rel=1e-4)


def test_each_term_has_its_own_wrong_labels_and_weight(logits):
    weights = ClassWeights(2.0, 0.5, 0.25, 4.0)
    loss = HierarchicalLoss(weights, 0.1, 0.3, 0.2, 0.05)
    z = logits.astype(np.float64)
    p, share = expit(logsumexp(z[:, 1:], axis=1) - z[:, 0]), expit(z[:, 1] - z[:, 2])
    expected = 0.0
    for label, ill, kind in zip(LABELS, p, share, strict=True):
        truth = 0.05 if label == NORMAL else 0.95
        weight = 2.0 if label == NORMAL else 0.5
        expected -= weight * (truth * np.log(ill) + (1 - truth) * np.log(1 - ill))
        if label in (BACTERIAL, VIRAL):
            labelled = 0.2 + 0.75 * kind if label == BACTERIAL else 0.05 + 0.75 * (1 - kind)
            expected -= 0.3 * (0.25 if label == BACTERIAL else 4.0) * np.log(labelled)
    assert total(loss, LABELS, logits) == pytest.approx(expected, rel=1e-5)


def test_a_network_that_knows_the_kinds_loses_least_where_labels_are_wrong_as_often_as_it_is_told():
    """With plain cross-entropy the probabilities would have to be those of the labels instead."""
    share_wrong = 0.15
    labels = np.array([BACTERIAL] * 3 + [VIRAL] * 17, np.int32)

    def slope(logit, false_bacterial):
        z = np.zeros((20, 3), np.float32)
        z[:, BACTERIAL] = logit
        loss = HierarchicalLoss(EVEN, 0.0, 1.0, false_bacterial, 0.0)
        none = HierarchicalLoss(EVEN, 0.0, 0.0, false_bacterial, 0.0)
        return float((gradient(loss, labels, z) - gradient(none, labels, z))[:, BACTERIAL].sum())

    assert slope(-6.0, share_wrong) == pytest.approx(0, abs=0.05)
    assert slope(-1.0, share_wrong) > 1
    assert slope(-6.0, 0.0) < -2


@pytest.mark.parametrize("wrong", [(0.0, 0.0), (0.12, 0.02), (0.12, 0.0)])
def test_saturated_logits_have_finite_losses_and_gradients(wrong):
    loss = HierarchicalLoss(EVEN, 0.05, 1.0, *wrong)
    z = np.array([[500, -500, 500], [-500, 500, -500], [0, -500, 500]] * 2, np.float32)
    assert np.isfinite(total(loss, LABELS, z))
    assert np.isfinite(gradient(loss, LABELS, z)).all()
