"""Scores and figures corrected to another prevalence of pneumonia."""

import numpy as np
import pytest
from support.scores import evaluate, scored

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.calibration import prior_corrected
from pneumonia_core.findings import (
    NORMAL,
    Thresholds,
)

HALVES = Thresholds(0.5, 0.5)


def test_prior_correction_is_bayes_rule_on_the_odds() -> None:
    """Elkan (2001): from a prior of one half, p = 0.8 (odds 4) becomes odds 4/9 where one in ten is ill."""
    assert prior_corrected([0.8], 0.5, 0.1)[0] == pytest.approx((4 / 9) / (1 + 4 / 9))
    assert prior_corrected([0.0, 0.3, 1.0], 0.4, 0.4).tolist() == pytest.approx([0.0, 0.3, 1.0])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        prior_corrected([0.5], 0.5, 1.0)


def test_assumed_prevalence_is_that_of_a_set_cut_to_it() -> None:
    """Figures at an assumed prevalence are those of really having so few ill children."""
    labels, probabilities, _ = scored(40000, seed=9, skill=1.4)
    assumed = evaluate(labels, probabilities, np.arange(40000), HALVES, prevalence=0.2, bootstrap=0)
    rng = np.random.default_rng(0)
    ill, well = np.flatnonzero(labels != NORMAL), np.flatnonzero(labels == NORMAL)
    kept = np.concatenate([rng.choice(ill, len(well) // 4, replace=False), well])
    cut = evaluate(labels[kept], probabilities[kept], kept, HALVES, bootstrap=0)
    for name in ("auroc", "auprc", "accuracy", "sensitivity", "specificity"):
        one, two = (report["tasks"]["pneumonia_vs_normal"][name]["value"] for report in (assumed, cut))
        assert one == pytest.approx(two, abs=0.01), name
    calibration = assumed["tasks"]["pneumonia_vs_normal"]["calibration"]
    assert calibration["slope"]["value"] == pytest.approx(1, abs=0.05)
    assert calibration["intercept"]["value"] == pytest.approx(0, abs=0.1)
    assert (
        calibration["ece"]["value"]
        < 0.01
        < cut["tasks"]["pneumonia_vs_normal"]["calibration"]["ece"]["value"]
    )
    share = pytest.approx(2 / 3, abs=0.01)
    assert assumed["prevalence"] == {"evaluated": share, "assumed": 0.2, "calibrated_at": share}


def test_prior_is_corrected_from_where_the_probabilities_were_calibrated() -> None:
    """Cut to one half ill, probabilities calibrated at 2/3 fit an assumed 1/5 only if that is known."""
    labels, probabilities, _ = scored(40000, seed=9, skill=1.4)
    ill, well = np.flatnonzero(labels != NORMAL), np.flatnonzero(labels == NORMAL)
    kept = np.concatenate([ill[: len(well)], well])
    errors = {
        prior: evaluate(
            labels[kept], probabilities[kept], kept, HALVES, prevalence=0.2, calibrated_at=prior, bootstrap=0
        )["tasks"]["pneumonia_vs_normal"]["calibration"]["ece"]["value"]
        for prior in (None, 2 / 3)
    }
    assert errors[2 / 3] < 0.01 < errors[None]


def test_prevalence_needs_both_outcomes() -> None:
    with pytest.raises(InvalidInput, match="normal and pneumonia"):
        evaluate([0, 0], np.full((2, 3), 1 / 3), [1, 2], HALVES, prevalence=0.1)
