"""Intervals of shares and areas, at 0 and 1 and on the way there, against scipy's exact binomial test."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest
from support.scores import evaluate, subgroups

from pneumonia_core.evaluation.bootstrap import (
    Estimate,
    Floats,
    effective_pairs,
    effective_patients,
    estimate,
    patient_resamples,
    ratio_limits,
)
from pneumonia_core.evaluation.measures import ranking_measures, weighted_mean
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


def test_what_is_no_share_keeps_the_percentile_interval() -> None:
    assert estimate(np.array([0.9, 0.8, 1.0])).as_json() == pytest.approx(
        {"value": 0.9, "low": 0.805, "high": 0.995}
    )
    assert estimate(np.ones(5)).as_json() == {"value": 1, "low": 1, "high": 1}
    assert estimate(np.ones(1), 10).as_json() == {"value": 1, "low": None, "high": None}
    assert estimate(np.full(5, np.nan), 0).as_json() == {"value": None, "low": None, "high": None}


def resampled(measure: Callable[[np.ndarray], np.ndarray], truth: np.ndarray, patients: np.ndarray) -> Floats:
    index = np.unique(patients, return_inverse=True)[1]
    return np.concatenate([measure(weights) for weights, _ in patient_resamples(truth, index, 1000, 0)])


@pytest.mark.parametrize("images_each", [1, 3])
def test_share_grows_towards_1_with_its_interval(images_each: int) -> None:
    """Each mistake less, be it of a patient with three images, moves both limits up."""
    patients = np.arange(40 * images_each) // images_each
    truth = np.zeros(len(patients), np.int64)
    estimates = []
    for mistakes in range(12, -1, -1):
        right = np.arange(len(patients)) * 7 % len(patients) >= mistakes
        values = resampled(lambda weights, right=right: weighted_mean(right, weights), truth, patients)
        estimates.append(estimate(values, effective_patients(patients)))
    assert_growing(estimates)
    assert estimates[-1].as_json() == exact(40, 40)


def test_auroc_grows_towards_1_with_its_interval() -> None:
    """Twelve images with pneumonia, from all below a normal one to none."""
    truth = np.repeat([NORMAL, BACTERIAL], [30, 60])
    estimates = []
    for mistakes in range(12, -1, -1):
        scores = np.linspace(0, 1, 90).astype(np.float32)
        scores[30 : 30 + mistakes] = 0.3
        values = resampled(
            lambda weights, scores=scores: ranking_measures(scores, truth != NORMAL, weights)["auroc"],
            truth,
            np.arange(90),
        )
        estimates.append(estimate(values, effective_pairs(60, 30)))
    assert_growing(estimates)
    assert 0.9 < estimates[-1].low < 0.97


def assert_growing(estimates: list[Estimate]) -> None:
    values, lows, highs = np.array([(each.value, each.low, each.high) for each in estimates]).T
    assert (np.diff(values) > 0).all()
    assert (np.diff(lows) > 0).all()
    assert (np.diff(highs) > 0).all()
    assert (np.diff(highs - lows) < 0).all()
    assert values[-1] == pytest.approx(1)
    assert highs[-1] == 1


def test_patients_with_more_images_weigh_more_but_are_one_opinion() -> None:
    assert effective_patients(["a"] * 9 + ["b"]) == pytest.approx(100 / 82)
    assert effective_patients(np.arange(12) // 3) == pytest.approx(4)
    assert effective_patients([1, 1, 2], [1, 1, 2]) == pytest.approx(2)
    assert effective_patients([]) == 0


def test_shares_of_simulated_patients_are_covered() -> None:
    """Of 300 samples of 60 patients with 1 to 4 images each, the interval holds the truth in 95 % or more."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        patients = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        right = rng.random(len(patients)) < rng.beta(0.97 * 3, 0.03 * 3, 60)[patients]
        index = np.unique(patients, return_inverse=True)[1]
        values = np.concatenate(
            [weighted_mean(right, w) for w, _ in patient_resamples(0 * patients, index, 200, 0)]
        )
        found = estimate(values, effective_patients(patients))
        covered += found.low <= 0.97 <= found.high
    assert covered >= 285


def test_ratio_of_shares_has_limits_also_where_one_is_0() -> None:
    share = Estimate
    low, high = ratio_limits(share(0.1, 0.05, 0.2), share(0.9, 0.8, 0.95))
    assert 0.05 / 0.95 < low < 0.1 / 0.9 < high < 0.2 / 0.8
    assert ratio_limits(share(0.0, 0.0, 0.1), share(1.0, 0.8, 1.0)) == pytest.approx((0, 0.1 / 0.96**0.5))
    low, high = ratio_limits(share(0.1, 0.05, 0.2), share(0.0, 0.0, 0.2))
    assert 0.05 / 0.2 < low < high == np.inf
    assert np.isnan(ratio_limits(share(0.5, None, None), share(0.5, 0.4, 0.6))).all()


def test_perfect_figures_count_the_patients_that_they_are_over() -> None:
    """Ten normal, six bacterial and four viral patients, two images each, all right but one normal image."""
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [20, 12, 8])
    found = labels.copy()
    found[0] = VIRAL
    report = evaluate(labels, ANSWERS[found], np.arange(40) // 2, HALVES, bootstrap=50)
    pneumonia, kind = report["tasks"]["pneumonia_vs_normal"], report["tasks"]["bacterial_vs_viral"]
    assert pneumonia["sensitivity"] == exact(10, 10)
    assert 0.6 < pneumonia["specificity"]["low"] < exact(10, 10).expected["low"]
    assert 0.99 < pneumonia["specificity"]["high"] < 1
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
    # Not both shares are at their lower limits at once.
    false_alarms = (1 - specificity) / np.sqrt(sensitivity * (2 - sensitivity))
    assert rare["ppv"] == pytest.approx({"value": 1, "low": 1 / (1 + 99 * false_alarms), "high": 1})
    missed = (1 - sensitivity) / np.sqrt(specificity * (2 - specificity))
    assert rare["npv"] == pytest.approx({"value": 1, "low": 1 / (1 + missed / 99), "high": 1})
    missed = evaluate(
        labels, ANSWERS[[NORMAL] * 9 + [BACTERIAL] + [NORMAL] * 16], np.arange(26), HALVES, bootstrap=50
    )
    assert missed["predictive_values"][0]["ppv"]["high"] > 0


def test_predictive_values_grow_towards_1_with_their_intervals() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [40, 20, 20])
    lows = []
    for false_alarms in (3, 2, 1, 0):
        found = np.where(np.arange(80) < false_alarms, BACTERIAL, labels)
        values = evaluate(labels, ANSWERS[found], np.arange(80), HALVES, bootstrap=200)["predictive_values"]
        lows.append(values[0]["ppv"]["low"])
    assert lows == sorted(lows)


def test_bins_of_the_reliability_curve_that_are_all_right_are_not_certain() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [10, 8, 8])
    report = evaluate(labels, ANSWERS[labels], np.arange(26), HALVES, bootstrap=50)
    first = report["tasks"]["pneumonia_vs_normal"]["calibration"]["bins"][0]
    assert first["images"] == 10
    assert first["observed"] == exact(0, 10)


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
