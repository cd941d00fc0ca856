"""Every measure against scikit-learn, a hand-computed number or an analytic case."""

import json
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from support.scores import evaluate

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import estimate, patient_resamples
from pneumonia_core.evaluation.calibration import prior_corrected
from pneumonia_core.evaluation.calibration_measures import (
    brier,
    calibration_line,
    expected_calibration_error,
    reliability,
)
from pneumonia_core.evaluation.thresholds import choose_thresholds
from pneumonia_core.findings import (
    BACTERIAL,
    NORMAL,
    VIRAL,
    Thresholds,
    bacterial_share,
    finding_labels,
    findings,
    p_pneumonia,
)

HALVES = Thresholds(0.5, 0.5)


def scored(images: int, seed: int = 0, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, calibrated probabilities and patients of a classifier that knows `skill` much.

    Gaussian logits with a shift of `skill` at the true class are calibrated after a scale of `skill`.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    logits = rng.normal(0, 1, (images, 3))
    logits[np.arange(images), labels] += skill
    powers = np.exp(skill * logits)
    return (
        labels,
        (powers / powers.sum(1, keepdims=True)).astype(np.float32),
        rng.integers(0, images // 2, images),
    )


def binary(labels: np.ndarray, probabilities: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    if task == "pneumonia_vs_normal":
        return labels != NORMAL, p_pneumonia(probabilities)
    sick = labels != NORMAL
    return labels[sick] == BACTERIAL, bacterial_share(probabilities)[sick]


def test_finding_follows_the_two_thresholds() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.4, 0.29, 0.31], [1, 0, 0]], np.float32)
    assert findings(probabilities, HALVES).tolist() == ["normal", "bacterial", "viral", "normal"]
    assert findings(probabilities, Thresholds(0.3, 0.8)).tolist() == ["viral", "viral", "viral", "normal"]
    assert findings(probabilities, Thresholds(0.0, 0.0)).tolist() == ["bacterial"] * 4
    assert findings(np.zeros((0, 3), np.float32), HALVES).tolist() == []


def test_probability_at_the_threshold_counts_as_ill_in_float32() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]], np.float64)
    assert p_pneumonia(probabilities).dtype == np.float32
    assert findings(probabilities, Thresholds(0.1, 1.0)).tolist() == ["bacterial"]


@pytest.mark.parametrize("task", ["pneumonia_vs_normal", "bacterial_vs_viral"])
@pytest.mark.parametrize("decimals", [7, 1])
def test_measures_agree_with_scikit_learn_also_where_scores_are_tied(task: str, decimals: int) -> None:
    labels, probabilities, patients = scored(500, seed=1, skill=1.3)
    probabilities = np.round(probabilities, decimals)
    probabilities[:, NORMAL] = 1 - probabilities[:, BACTERIAL] - probabilities[:, VIRAL]
    probabilities = np.abs(probabilities)
    thresholds = Thresholds(0.45, 0.55)
    report = evaluate(labels, probabilities, patients, thresholds, bootstrap=0)["tasks"][task]
    positive, score = binary(labels, probabilities, task)
    called = score >= np.float32(report["threshold"])
    expected = {
        "auroc": reference.roc_auc_score(positive, score),
        "auprc": reference.average_precision_score(positive, score),
        "accuracy": reference.accuracy_score(positive, called),
        "sensitivity": reference.recall_score(positive, called),
        "specificity": reference.recall_score(~positive, ~called),
    }
    fpr, tpr, _ = reference.roc_curve(positive, score, drop_intermediate=False)
    expected["sensitivity_at_specificity_90"] = tpr[1 - fpr >= 0.90 - 1e-9].max()
    expected["sensitivity_at_specificity_95"] = tpr[1 - fpr >= 0.95 - 1e-9].max()
    assert {name: report[name]["value"] for name in expected} == pytest.approx(expected)
    assert report["calibration"]["brier"]["value"] == pytest.approx(
        reference.brier_score_loss(positive, np.clip(score.astype(float), 0, 1)), rel=1e-6
    )
    assert reference.auc(report["roc"]["fpr"], report["roc"]["tpr"]) == pytest.approx(
        expected["auroc"], abs=2e-3
    )
    assert (report["images"], report["positives"]) == (len(positive), positive.sum())


def test_resampled_measures_are_those_of_scikit_learn_with_sample_weights() -> None:
    labels, probabilities, patients = scored(200, seed=2, skill=1.0)
    report = evaluate(labels, probabilities, patients, HALVES, bootstrap=40, seed=5)
    positive, score = binary(labels, probabilities, "pneumonia_vs_normal")
    index = np.unique(patients, return_inverse=True)[1]
    values: dict[str, list[float]] = {"auroc": [], "auprc": [], "three": []}
    for weights, _ in patient_resamples(labels, index, 40, 5):
        for row in weights:
            values["auroc"].append(reference.roc_auc_score(positive, score, sample_weight=row))
            values["auprc"].append(reference.average_precision_score(positive, score, sample_weight=row))
            right = finding_labels(probabilities, HALVES) == labels
            values["three"].append(np.average(right, weights=row))
    assert report["tasks"]["pneumonia_vs_normal"]["auroc"] == pytest.approx(
        estimate(np.array(values["auroc"])).as_json()
    )
    assert report["tasks"]["pneumonia_vs_normal"]["auprc"] == pytest.approx(
        estimate(np.array(values["auprc"])).as_json()
    )
    assert report["three_class"]["accuracy"] == pytest.approx(estimate(np.array(values["three"])).as_json())


def test_three_class_figures_count_findings() -> None:
    labels, probabilities, patients = scored(300, seed=3)
    thresholds = Thresholds(0.4, 0.6)
    report = evaluate(labels, probabilities, patients, thresholds, bootstrap=10)["three_class"]
    found = finding_labels(probabilities, thresholds)
    assert report["confusion"] == reference.confusion_matrix(labels, found).tolist()
    assert report["accuracy"]["value"] == pytest.approx(reference.accuracy_score(labels, found))
    recalls = reference.recall_score(labels, found, average=None)
    assert [report["recall"][name]["value"] for name in ("normal", "bacterial", "viral")] == pytest.approx(
        recalls
    )


def test_calibration_error_and_brier_of_a_hand_computed_example() -> None:
    """Two bins: (0.25; 1 of 4 ill, gap 0) and (0.85; 3 of 6 ill, gap 0.35), so ECE = 0.6 x 0.35 = 0.21."""
    probability = np.array([0.25] * 4 + [0.85] * 6)
    positive = np.array([1, 0, 0, 0, 1, 1, 1, 0, 0, 0], bool)
    once = np.ones((1, 10))
    curve = reliability(probability, positive, once)
    assert curve.count[0, [2, 8]].tolist() == [4, 6]
    assert curve.observed[0, [2, 8]].tolist() == [0.25, 0.5]
    assert np.isnan(curve.observed[0, 5])
    assert expected_calibration_error(curve)[0] == pytest.approx(0.21)
    # (0.75^2 + 3 x 0.25^2 + 3 x 0.15^2 + 3 x 0.85^2) / 10
    assert brier(probability, positive, once)[0] == pytest.approx(0.2985)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1.0), (2.0, 0.7)])
def test_calibration_line_agrees_with_a_logistic_regression(slope: float, intercept: float) -> None:
    rng = np.random.default_rng(4)
    logit = rng.normal(0.3, 1.5, 4000)
    probability = 1 / (1 + np.exp(-logit))
    positive = rng.random(4000) < 1 / (1 + np.exp(-(intercept + slope * logit)))
    weights = np.stack([np.ones(4000), rng.integers(0, 3, 4000).astype(float)])
    slopes, intercepts = calibration_line(probability, positive, weights)
    for row, found_slope, found_intercept in zip(weights, slopes, intercepts, strict=True):
        fit = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logit[:, None], positive, row)
        assert found_slope == pytest.approx(fit.coef_[0, 0], abs=1e-4)
        assert found_intercept == pytest.approx(fit.intercept_[0], abs=1e-4)
    assert slopes[0] == pytest.approx(slope, abs=0.15)
    assert intercepts[0] == pytest.approx(intercept, abs=0.15)


@pytest.mark.parametrize(
    "probability",
    [
        [0.1, 0.2, 0.8, 0.9],
        [0.16, 0.02, 0.92, 0.92],  # its steps end in rounding, at a slope of 27
        [0.05, 0.13, 0.29, 0.76, 0.89, 0.71],  # at one of 46
        [0.1, 0.5, 0.5, 0.9],
        [0.9, 0.8, 0.2, 0.1],
        [0.4, 0.4, 0.4, 0.4],
    ],
)
def test_calibration_line_has_no_slope_where_nothing_is_confused(probability: list[float]) -> None:
    positive = np.arange(len(probability)) >= len(probability) // 2
    confused = (
        np.concatenate([probability, [0.05, 0.95, 0.05, 0.95]]),
        np.concatenate([positive, [True, True, False, False]]),
    )
    weights = np.ones((2, len(probability) + 4))
    weights[0, -4:] = 0
    slopes, intercepts = calibration_line(*confused, weights)
    assert np.isnan([slopes[0], intercepts[0]]).all()
    assert np.isfinite([slopes[1], intercepts[1]]).all()


def test_bootstrap_interval_of_an_accuracy_is_the_binomial_one() -> None:
    """One image a patient: the resampled accuracy is Binomial(n, share) / n."""
    n, right = 400, 340
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], [200, 100, 100])
    probabilities = np.full((n, 3), 0.05, np.float32)
    answers = labels.copy()
    answers[:60] = BACTERIAL
    probabilities[np.arange(n), answers] = 0.9
    report = evaluate(labels, probabilities, np.arange(n), HALVES, bootstrap=4000)
    accuracy = report["three_class"]["accuracy"]
    assert accuracy["value"] == right / n
    low, high = beta.ppf([0.025, 0.975], right + 0.5, n - right + 0.5)  # Jeffreys' interval
    assert accuracy["low"] == pytest.approx(low, abs=0.006)
    assert accuracy["high"] == pytest.approx(high, abs=0.006)


def test_interval_is_wider_where_patients_have_several_images() -> None:
    """Ten copies of each image are no new evidence: the interval must not shrink."""
    labels, probabilities, _ = scored(60, seed=6, skill=1.0)
    alone = evaluate(labels, probabilities, np.arange(60), HALVES, bootstrap=500)["three_class"]["accuracy"]
    copies = evaluate(
        np.repeat(labels, 10),
        np.repeat(probabilities, 10, 0),
        np.repeat(np.arange(60), 10),
        HALVES,
        bootstrap=500,
    )["three_class"]["accuracy"]
    assert copies == pytest.approx(alone)


def test_resamples_without_a_class_are_skipped_and_counted() -> None:
    labels, probabilities, _ = scored(9, seed=1)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    counts = evaluate(labels, probabilities, np.arange(9), HALVES, bootstrap=2000)["bootstrap"]
    assert counts["used"] + counts["skipped"] == counts["resamples"] == 2000
    without_viral = (8 / 9) ** 9
    assert counts["skipped"] / 2000 == pytest.approx(without_viral, abs=0.05)


def test_evaluation_is_the_same_for_one_seed_and_can_be_written_as_json() -> None:
    labels, probabilities, patients = scored(120)
    first = evaluate(labels, probabilities, [f"p{p}" for p in patients], HALVES, bootstrap=50, seed=3)
    assert first == evaluate(labels, probabilities, [f"p{p}" for p in patients], HALVES, bootstrap=50, seed=3)
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    other = evaluate(labels, probabilities, patients, HALVES, bootstrap=50, seed=4)
    assert other["three_class"]["accuracy"] != first["three_class"]["accuracy"]


@pytest.mark.timeout(120)
def test_thousand_resamples_of_six_hundred_images_are_quick() -> None:
    labels, probabilities, patients = scored(600)
    evaluate(labels, probabilities, patients, HALVES, bootstrap=1000)


@pytest.mark.parametrize("present", [(NORMAL,), (BACTERIAL, VIRAL), (NORMAL, BACTERIAL)])
def test_measures_of_an_absent_class_are_null(present: tuple[int, ...]) -> None:
    labels, probabilities, _ = scored(100)
    chosen = np.isin(labels, present)
    report = evaluate(labels[chosen], probabilities[chosen], np.arange(chosen.sum()), HALVES, bootstrap=20)
    json.dumps(report, allow_nan=False)
    pneumonia, kind = report["tasks"]["pneumonia_vs_normal"], report["tasks"]["bacterial_vs_viral"]
    assert (pneumonia["auroc"]["value"] is None) == (present != (NORMAL, BACTERIAL))
    assert (kind["auroc"]["value"] is None) == (present != (BACTERIAL, VIRAL))
    assert kind["roc"] is None or present == (BACTERIAL, VIRAL)
    assert report["three_class"]["accuracy"]["value"] is not None


def test_predictive_values_are_those_of_bayes_rule() -> None:
    """Sensitivity 0.9, specificity 0.8: at 10 % prevalence PPV = 0.09 / 0.27 and NPV = 0.72 / 0.73."""
    labels = np.repeat([NORMAL, BACTERIAL], 50)
    probabilities = np.where(np.arange(100)[:, None] % 50 < 10, [[0.2, 0.7, 0.1]], [[0.8, 0.1, 0.1]])
    probabilities[50:] = [0.1, 0.8, 0.1]
    probabilities[50:55] = [0.9, 0.05, 0.05]
    values = evaluate(labels, probabilities, np.arange(100), HALVES, bootstrap=100)["predictive_values"]
    row = next(value for value in values if value["prevalence"] == 0.1)
    assert row["ppv"]["value"] == pytest.approx(1 / 3)
    assert row["npv"]["value"] == pytest.approx(0.72 / 0.73)
    assert row["ppv"]["low"] < 1 / 3 < row["ppv"]["high"]


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


def test_thresholds_lie_in_a_gap_nearest_to_the_share_of_positives_but_off_its_edges() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], 20)
    probabilities = np.repeat([[0.9, 0.06, 0.04], [0.5, 0.4, 0.1], [0.5, 0.1, 0.4]], 20, axis=0)
    t1, t2 = astuple(choose_thresholds(labels, probabilities))
    assert t1 == pytest.approx(0.1 + 0.75 * (0.5 - 0.1), abs=1e-6)
    assert t2 == pytest.approx(0.5, abs=1e-6)


def test_copies_of_images_leave_the_threshold_where_it_is() -> None:
    labels, probabilities, _ = scored(400, seed=3, skill=1.5)
    once = choose_thresholds(labels, probabilities)
    assert choose_thresholds(np.tile(labels, 4), np.tile(probabilities, (4, 1)), 4) == once


def test_thresholds_do_not_follow_the_class_prior() -> None:
    labels, probabilities, _ = scored(6000, seed=8)
    rng = np.random.default_rng(1)
    few_normal = (labels != NORMAL) | (rng.random(6000) < 0.15)
    t1, t2 = astuple(choose_thresholds(labels, probabilities))
    prior_t1, prior_t2 = astuple(choose_thresholds(labels[few_normal], probabilities[few_normal]))
    assert prior_t1 == pytest.approx(t1, abs=0.1)
    assert prior_t2 == pytest.approx(t2, abs=0.05)
    assert t2 == pytest.approx(0.5, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(200, 400))
def test_threshold_is_nearly_the_best_on_its_own_images(seed: int, images: int) -> None:
    labels, probabilities, _ = scored(images, seed, skill=1.5)
    t1, _ = astuple(choose_thresholds(labels, probabilities))
    ill, score = labels != NORMAL, p_pneumonia(probabilities)

    def youden(threshold: float) -> float:
        return float((score[ill] >= threshold).mean() + (score[~ill] < threshold).mean() - 1)

    def standard_error(threshold: float) -> float:
        shares = ((score[part] >= threshold).mean() for part in (ill, ~ill))
        counts = (ill.sum(), (~ill).sum())
        return float(np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True)))) + 1e-9

    best_at = max(np.append(np.unique(score), 2.0), key=youden)
    best = youden(best_at)
    assert 0 <= t1 <= 1
    assert youden(np.float32(t1)) >= best - standard_error(best_at)


def test_thresholds_need_every_class() -> None:
    with pytest.raises(InvalidInput, match="viral"):
        choose_thresholds([0, 1], [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 3)), "no scored images"),
        ([0, 3], np.full((2, 3), 1 / 3), "labels are 0 to 2"),
        ([0, 1], np.full((2, 3), 0.5), "sum 1"),
        ([0, 1], np.full((2, 2), 0.5), "do not fit"),
        ([0, 1], np.full((2, 3), np.nan), "sum 1"),
    ],
)
def test_unusable_input_is_named(labels: list[int], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        evaluate(labels, probabilities, list(range(len(labels))), HALVES)


def test_prevalence_needs_both_outcomes() -> None:
    with pytest.raises(InvalidInput, match="normal and pneumonia"):
        evaluate([0, 0], np.full((2, 3), 1 / 3), [1, 2], HALVES, prevalence=0.1)
