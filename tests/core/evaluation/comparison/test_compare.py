"""Two models on the same images: paired differences, and McNemar's test."""

import json

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score
from support.scores import scored

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.evaluation.bootstrap import patient_resamples
from pneumonia_core.evaluation.comparison.compare import COMPARED, ModelScores, compare, mcnemar_tests
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.evaluation.table_scores import TableScores
from pneumonia_core.findings import NORMAL, PNEUMONIA_UNKNOWN_KIND, Thresholds, p_pneumonia


def model(name, labels, patients, probabilities, positions=None):
    positions = np.arange(len(labels)) if positions is None else positions
    of_positions = ScoredSet.of(labels, patients, probabilities).subset(positions)
    unknown = [None] * len(positions)
    scores = TableScores(of_positions, positions, unknown, unknown, unknown, unknown, "openvino", None, {})
    return ModelScores(name, Thresholds(0.5, 0.5), scores)


@pytest.fixture(scope="module")
def noisier():
    """Labels, patients, and the probabilities of a model and of one that is like it, but worse."""
    labels, probabilities, patients = scored(400)
    worse = probabilities * np.random.default_rng(1).uniform(0.2, 1, probabilities.shape)
    return labels, patients, probabilities, (worse / worse.sum(1, keepdims=True)).astype(np.float32)


def test_differences_are_of_the_same_resamples(noisier):
    labels, patients, better, worse = noisier
    pair = compare(model("a", labels, patients, worse), model("b", labels, patients, better), bootstrap=60)
    json.dumps(pair, allow_nan=False)
    assert [row["measure"] for row in pair["differences"]] == list(COMPARED)
    row = pair["differences"][0]
    ill = labels != NORMAL
    index = np.unique(patients, return_inverse=True)[1]
    weights = np.concatenate([block for block, _ in patient_resamples(labels, index, 60, 0)])

    def auroc(probabilities, some):
        return roc_auc_score(ill, p_pneumonia(probabilities), sample_weight=some)

    differences = [auroc(better, some) - auroc(worse, some) for some in weights]
    assert row["second"] == pytest.approx(auroc(better, None))
    assert row["difference"]["value"] == pytest.approx(differences[0])
    low, high = np.quantile(differences[1:], [0.025, 0.975])
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx((low, high))
    assert low > 0


def test_a_model_compared_with_itself_differs_in_nothing(noisier):
    labels, patients, better, _ = noisier
    pair = compare(model("a", labels, patients, better), model("a", labels, patients, better), bootstrap=20)
    assert {end for row in pair["differences"] for end in row["difference"].values()} == {0.0}
    assert [test["p_value"] for test in pair["mcnemar"]] == [None, None]


def test_images_that_only_one_model_could_score_are_counted_and_left_out(noisier):
    labels, patients, better, worse = noisier
    first = model("a", labels, patients, worse, np.arange(300))
    second = model("b", labels, patients, better, np.arange(100, 400))
    pair = compare(first, second, bootstrap=10)
    assert (pair["images"], pair["scored_by_one_alone"]) == (200, 200)
    part = slice(100, 300)
    expected = roc_auc_score(labels[part] != NORMAL, p_pneumonia(better[part]))
    assert pair["differences"][0]["second"] == pytest.approx(expected)
    with pytest.raises(PneumoniaError, match="nothing to compare"):
        compare(first, model("b", labels, patients, better, np.arange(300, 400)))


def test_mcnemar_is_the_exact_test_of_the_images_that_one_model_alone_has_right():
    # Twelve images: both right on four, the first alone on seven, the second alone on one.
    truth = np.ones(12, int)
    first, second = np.array([1] * 11 + [0]), np.array([1] * 4 + [0] * 7 + [1])
    pneumonia, three = mcnemar_tests(truth, first, second)
    assert (pneumonia["first_alone_right"], pneumonia["second_alone_right"]) == (7, 1)
    assert pneumonia["p_value"] == pytest.approx(2 * binom.cdf(1, 8, 0.5))
    assert three["p_value"] == pneumonia["p_value"]
    unknown = np.full(12, PNEUMONIA_UNKNOWN_KIND)
    pneumonia, three = mcnemar_tests(unknown, first, second)
    assert (pneumonia["first_alone_right"], three["first_alone_right"]) == (7, 0)
