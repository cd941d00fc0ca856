"""The rows of a labelled set: which of them are measured, and what an evaluation adds to the measures."""

import numpy as np
import pytest

from pneumonia_core.domain import Domain
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.evaluation.table_scores import evaluate_table, read_scores
from pneumonia_core.findings import Thresholds


def row(number, status="scored", **values):
    scored = {"p_normal": 0.2, "p_bacterial": 0.7, "p_viral": 0.1, "in_domain": number % 2 == 0}
    return {
        "image_uri": f"file:///{number}.png", "status": status, "width": 64, "height": 48,
        "engine": "openvino", "precision": "bfloat16",
        "reject_reason": None, "source_mode": None,
        **(scored if status == "scored" else {}), **values,
    }  # fmt: skip


def test_images_without_a_score_are_counted_and_not_measured():
    rows = [row(0, source_mode="L"), row(1, "rejected", reject_reason="empty"), row(2), row(3)]
    scores = read_scores([0, 1, 1, 2], ["a", "b", "c", "d"], rows)
    assert scores.positions.tolist() == [0, 2, 3]
    assert scores.scored.labels.tolist() == [0, 1, 2]
    assert scores.scored.patients.tolist() == ["a", "c", "d"]
    np.testing.assert_allclose(scores.scored.probabilities[0], [0.2, 0.7, 0.1], rtol=1e-6)
    evaluation = evaluate_table(scores, Thresholds(0.5, 0.5), Domain(1.0), bootstrap=10)
    assert evaluation["rejected"] == {"empty": 1}
    assert (evaluation["engine"], evaluation["precision"]) == ("openvino", "bfloat16")
    assert evaluation["domain"] == {"threshold": 1.0, "flagged_share": pytest.approx(1 / 3)}
    groups = [(part["factor"], part["group"], part["images"]) for part in evaluation["subgroups"]]
    assert groups == [("image size", "64 × 48", 3), ("colour mode", "L", 1), ("colour mode", "unknown", 2)]


def test_domain_is_not_reported_where_the_bundle_cannot_tell():
    scores = read_scores([0], ["a"], [row(0, in_domain=None)])
    assert "domain" not in evaluate_table(scores, Thresholds(0.5, 0.5), None, bootstrap=10)


def test_reasons_are_named_where_no_image_could_be_scored():
    with pytest.raises(PneumoniaError, match="1 not_found"):
        read_scores([0], ["a"], [row(0, "rejected", reject_reason="not_found")])
