"""The linear probe: the minimum of a logistic regression, however the images are shared out among workers."""

import threading

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from pneumonia_core.findings import NORMAL, PNEUMONIA_UNKNOWN_KIND
from pneumonia_core.training.linear_probe import fit_linear_probe
from pneumonia_core.training.loss import ClassWeights, HierarchicalLoss

EVEN = ClassWeights(1.0, 1.0, 1.0, 1.0)


def loss(smoothing=0.0, weights=EVEN):
    return HierarchicalLoss(weights, smoothing, 1.0, 0.0, 0.0)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] of very different sizes, one of them dead, and labels [N] that follow them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 12)) * np.geomspace(0.01, 30, 12) + rng.normal(size=12)
    features[:, 5] = 0.25
    logits = (
        (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6) @ rng.normal(size=(12, 3))
    )
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return features.astype(np.float32), labels


def probabilities(features: np.ndarray, head: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return softmax(features.astype(np.float64) @ head[0] + head[1], axis=1)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 3.0, 3.0)])
def test_head_is_the_logistic_regression_of_scikit_learn(drawn, weights):
    features, labels = drawn
    of_terms = loss(weights=ClassWeights(weights[0], weights[1], weights[1], weights[1]))
    head = fit_linear_probe(features, labels, of_terms, total=np.copy, penalty=0.01)
    standard = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    expected = LogisticRegression(
        C=1 / (0.01 * len(labels)), class_weight=dict(enumerate(weights)), tol=1e-8, max_iter=1000
    ).fit(standard, labels)
    np.testing.assert_allclose(probabilities(features, head), expected.predict_proba(standard), atol=2e-3)


def test_smoothing_draws_probabilities_to_the_middle(drawn):
    features, labels = drawn
    sharp, smooth = (
        probabilities(features, fit_linear_probe(features, labels, loss(smoothing), np.copy)).max()
        for smoothing in (0.0, 0.3)
    )
    assert smooth < sharp


def test_images_of_unknown_kind_count_as_pneumonia(drawn):
    """Without a known kind, the head gives the binary regression and both kinds alike."""
    features, labels = drawn
    unknown = np.where(labels == NORMAL, NORMAL, PNEUMONIA_UNKNOWN_KIND)
    of_terms = HierarchicalLoss(ClassWeights.balanced(unknown), 0.0, 1.0, 0.0, 0.0)
    found = probabilities(features, fit_linear_probe(features, unknown, of_terms, np.copy, penalty=1e-4))
    np.testing.assert_allclose(found[:, 1], found[:, 2], atol=1e-4)
    standard = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    binary = LogisticRegression(C=1 / (1e-4 * len(labels)), class_weight="balanced", max_iter=1000)
    expected = binary.fit(standard, unknown != NORMAL).predict_proba(standard)[:, 1]
    np.testing.assert_allclose(1 - found[:, 0], expected, atol=5e-3)


@pytest.mark.parametrize("shares", [(200, 200, 200), (1, 599, 0)])
def test_workers_come_to_the_head_of_all_images(drawn, shares):
    features, labels = drawn
    alone = fit_linear_probe(features, labels, loss(0.05), np.copy)
    ends = np.cumsum(shares)
    barrier, parts, heads = threading.Barrier(len(shares)), [None] * len(shares), [None] * len(shares)

    def work(rank: int) -> None:
        def total(values: np.ndarray) -> np.ndarray:
            parts[rank] = values
            barrier.wait()
            result = np.sum(parts, axis=0)
            barrier.wait()
            return result

        mine = slice(ends[rank] - shares[rank], ends[rank])
        heads[rank] = fit_linear_probe(features[mine], labels[mine], loss(0.05), total)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for head in heads:
        np.testing.assert_array_equal(head[0], heads[0][0])
        np.testing.assert_allclose(probabilities(features, head), probabilities(features, alone), atol=2e-3)
