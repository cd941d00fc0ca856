"""How accurate the surest findings are."""

import json

import numpy as np
import pytest
from support.scores import scored

from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.evaluation.selective.risk_coverage import COVERAGES, confidence, risk_coverage
from pneumonia_core.findings import NORMAL, Thresholds, p_pneumonia


def of_p(totals, labels):
    probabilities = np.stack([1 - np.array(totals), totals, np.zeros(len(totals))], axis=1)
    return ScoredSet.of(labels, np.arange(len(labels)), probabilities)


def test_curve_is_that_of_a_hand_computed_example():
    # From the surest on: right, right, wrong, right, of the threshold 0.5.
    figures = risk_coverage(of_p([0.99, 0.02, 0.9, 0.4], [1, 0, 0, 0]), Thresholds(0.5, 0.5), bootstrap=20)
    accuracy = {point["coverage"]: point["accuracy"]["value"] for point in figures["points"]}
    assert [accuracy[share] for share in (0.25, 0.5, 0.75, 1.0)] == pytest.approx([1, 1, 2 / 3, 3 / 4])
    assert accuracy[0.55] == accuracy[0.75]
    assert figures["aurc"]["value"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert figures["error_rate"] == 0.25
    json.dumps(figures, allow_nan=False)


def test_images_of_equal_confidence_are_answered_together():
    figures = risk_coverage(of_p([0.9] * 4, [1, 1, 0, 0]), Thresholds(0.5, 0.5), bootstrap=0)
    assert {point["accuracy"]["value"] for point in figures["points"]} == {0.5}
    assert figures["aurc"]["value"] == 0.5


def test_a_finding_is_least_sure_at_the_threshold():
    probabilities = of_p([0.3, 0.301, 0.31, 0.2, 1.0], [0] * 5).probabilities
    sure = confidence(probabilities, 0.3)
    assert sure[0] == pytest.approx(0, abs=1e-6)
    assert sure.argsort().tolist() == [0, 1, 2, 3, 4]
    assert np.isfinite(sure).all()


def test_calibrated_scores_know_how_sure_they_are():
    labels, probabilities, patients = scored(2000)
    figures = risk_coverage(ScoredSet.of(labels, patients, probabilities), Thresholds(0.5, 0.5), bootstrap=50)
    wrong = (p_pneumonia(probabilities) >= np.float32(0.5)) != (labels != NORMAL)
    assert figures["points"][-1]["accuracy"]["value"] == pytest.approx(1 - wrong.mean())
    assert figures["points"][9]["accuracy"]["low"] > figures["points"][-1]["accuracy"]["high"]
    assert figures["aurc"]["high"] < wrong.mean() / 2
    assert [point["coverage"] for point in figures["points"]] == list(COVERAGES)
