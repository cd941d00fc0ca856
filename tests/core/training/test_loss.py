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
    loss = HierarchicalLoss(EVEN, 0.0, 1.0, 0.2, 0.0)
    one, label = logits[:1], np.array([PNEUMONIA_UNKNOWN_KIND], np.int32)
    pneumonia = logsumexp(one[0, 1:]) - one[0, 0]
    assert total(loss, label, one) == pytest.approx(-np.log(expit(pneumonia)), rel=1e-4)


def test_each_term_has_its_own_smoothing_and_weight(logits):
    weights = ClassWeights(2.0, 0.5, 0.25, 4.0)
    loss = HierarchicalLoss(weights, 0.1, 0.3, 0.2, 0.0)
    z = logits.astype(np.float64)
    p, share = expit(logsumexp(z[:, 1:], axis=1) - z[:, 0]), expit(z[:, 1] - z[:, 2])
    expected = 0.0
    for label, ill, kind in zip(LABELS, p, share, strict=True):
        truth = 0.05 if label == NORMAL else 0.95
        weight = 2.0 if label == NORMAL else 0.5
        expected -= weight * (truth * np.log(ill) + (1 - truth) * np.log(1 - ill))
        if label in (BACTERIAL, VIRAL):
            truth, weight = (0.9, 0.25) if label == BACTERIAL else (0.1, 4.0)
            expected -= 0.3 * weight * (truth * np.log(kind) + (1 - truth) * np.log(1 - kind))
    assert total(loss, LABELS, logits) == pytest.approx(expected, rel=1e-5)


def test_generalised_cross_entropy_listens_less_to_labels_it_disbelieves():
    """The gradient of (1 - p^q) / q is p^q times that of the cross-entropy."""
    labels, q = np.array([BACTERIAL], np.int32), 0.7
    for logit in (-4.0, 0.0, 3.0):
        z = np.array([[0.0, logit, 0.0]], np.float32)
        of_kind = [
            gradient(HierarchicalLoss(EVEN, 0.0, 1.0, 0.0, some), labels, z)
            - gradient(HierarchicalLoss(EVEN, 0.0, 0.0, 0.0, some), labels, z)
            for some in (0.0, q)
        ]
        np.testing.assert_allclose(of_kind[1], expit(logit) ** q * of_kind[0], atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 0.7])
def test_saturated_logits_have_finite_losses_and_gradients(q):
    loss = HierarchicalLoss(EVEN, 0.05, 1.0, 0.2, q)
    z = np.array([[500, -500, 500], [-500, 500, -500], [0, -500, 500]] * 2, np.float32)
    assert np.isfinite(total(loss, LABELS, z))
    assert np.isfinite(gradient(loss, LABELS, z)).all()
