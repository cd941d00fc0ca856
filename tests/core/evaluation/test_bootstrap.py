"""Intervals of perfect shares, against scipy's exact binomial test."""

import numpy as np
import pytest
from scipy.stats import binomtest
from support.scores import evaluate, subgroups

from pneumonia_core.evaluation.bootstrap import estimate
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL, Thresholds

HALVES = Thresholds(0.5, 0.5)
ANSWERS = np.array([[0.9, 0.06, 0.04], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], np.float32)


def exact(right: int, patients: int) -> dict:
    interval = binomtest(right, patients).proportion_ci(0.95, "exact")
    return pytest.approx({"value": right / patients, "low": interval.low, "high": interval.high})


@pytest.mark.parametrize("patients", [1, 2, 10, 624])
@pytest.mark.parametrize("share", [0, 1])
def test_perfect_share_has_the_exact_interval(share: int, patients: int) -> None:
    assert estimate(np.full(11, float(share)), patients).as_json() == exact(share * patients, patients)


def test_what_is_no_perfect_share_keeps_the_percentile_interval() -> None:
    assert estimate(np.array([0.9, 0.8, 1.0]), 10) == estimate(np.array([0.9, 0.8, 1.0]))
    assert estimate(np.ones(5)).as_json() == {"value": 1, "low": 1, "high": 1}
    assert estimate(np.ones(1), 10).as_json() == {"value": 1, "low": None, "high": None}
    assert estimate(np.full(5, np.nan), 0).as_json() == {"value": None, "low": None, "high": None}


def test_perfect_figures_count_the_patients_that_they_are_over() -> None:
    """Ten normal, six bacterial and four viral patients, two images each, all right but one normal image."""
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [20, 12, 8])
    found = labels.copy()
    found[0] = VIRAL
    report = evaluate(labels, ANSWERS[found], np.arange(40) // 2, HALVES, bootstrap=50)
    pneumonia, kind = report["tasks"]["pneumonia_vs_normal"], report["tasks"]["bacterial_vs_viral"]
    assert pneumonia["sensitivity"] == exact(10, 10)
    assert pneumonia["specificity"]["low"] > exact(1, 1).expected["low"]
    assert pneumonia["specificity"]["high"] == 1
    assert kind["sensitivity"] == report["three_class"]["recall"]["bacterial"] == exact(6, 6)
    assert kind["specificity"] == report["three_class"]["recall"]["viral"] == exact(4, 4)
    assert kind["accuracy"] == exact(10, 10)
    assert pneumonia["accuracy"]["value"] == report["three_class"]["accuracy"]["value"] == 39 / 40


def test_predictive_values_are_as_unsure_as_the_perfect_shares_that_they_follow_from() -> None:
    """Ten of ten healthy patients cleared is possible at 69 %: at 1 % ill, the PPV is then 0.02."""
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [10, 8, 8])
    rare = evaluate(labels, ANSWERS[labels], np.arange(26), HALVES, bootstrap=50)["predictive_values"][0]
    sensitivity, specificity = exact(16, 16).expected["low"], exact(10, 10).expected["low"]
    assert rare["prevalence"] == 0.01
    low = 0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity))
    assert rare["ppv"] == pytest.approx({"value": 1, "low": low, "high": 1})
    low = 0.99 * specificity / (0.99 * specificity + 0.01 * (1 - sensitivity))
    assert rare["npv"] == pytest.approx({"value": 1, "low": low, "high": 1})
    missed = evaluate(
        labels, ANSWERS[[NORMAL] * 9 + [BACTERIAL] + [NORMAL] * 16], np.arange(26), HALVES, bootstrap=50
    )
    assert missed["predictive_values"][0]["ppv"]["high"] > 0


def test_images_of_one_patient_tell_nothing_of_others() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], 4)
    found = np.where(np.arange(12) % 4 == 0, NORMAL, labels)
    alone = evaluate(labels, ANSWERS[found], ["p"] * 12, HALVES, bootstrap=50)
    assert (alone["bootstrap"]["used"], alone["bootstrap"]["skipped"]) == (0, 50)
    assert alone["tasks"]["pneumonia_vs_normal"]["auroc"]["low"] is None
    patients = np.where(labels == NORMAL, np.arange(12), 99)
    one_ill = subgroups(labels, ANSWERS[found], patients, HALVES, {"mode": ["L"] * 12}, bootstrap=50)[0]
    assert one_ill["sensitivity"] == {"value": 0.75, "low": None, "high": None}
    assert one_ill["specificity"] == exact(4, 4)


def test_nothing_found_has_an_exact_interval_as_well() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], 5)
    report = evaluate(labels, ANSWERS[np.full(15, NORMAL)], np.arange(15), HALVES, bootstrap=50)
    assert report["tasks"]["pneumonia_vs_normal"]["sensitivity"] == exact(0, 10)
    assert report["three_class"]["recall"]["viral"] == exact(0, 5)


def test_perfect_accuracy_at_an_assumed_prevalence_is_as_sure_as_the_few_that_weigh_most() -> None:
    """At 5 % ill, nineteen twentieths of the accuracy come from ten patients."""
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [10, 500, 490])
    report = evaluate(labels, ANSWERS[labels], np.arange(1000), HALVES, prevalence=0.05, bootstrap=50)
    pneumonia = report["tasks"]["pneumonia_vs_normal"]
    assert pneumonia["accuracy"]["value"] == pytest.approx(1)
    assert pneumonia["accuracy"]["low"] == pytest.approx(binomtest(11, 11).proportion_ci().low, abs=0.01)
    assert pneumonia["sensitivity"] == exact(990, 990)
    assert pneumonia["specificity"] == exact(10, 10)


def test_groups_have_exact_intervals_over_their_own_patients() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [6, 4, 4])
    patients = np.arange(14) // 2
    rows = subgroups(labels, ANSWERS[labels], patients, HALVES, {"mode": ["L"] * 14}, bootstrap=20)
    assert rows[0]["sensitivity"] == exact(4, 4)
    assert rows[0]["specificity"] == exact(3, 3)
