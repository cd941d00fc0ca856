"""Every measure against scikit-learn, a hand-computed number or an analytic case."""

import json

import numpy as np
import pytest
from scipy.stats import beta
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from support.scores import evaluate, scored

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import (
    effective_pairs,
    effective_patients,
    estimate,
    patient_resamples,
)
from pneumonia_core.evaluation.calibration_measures import (
    brier,
    calibration_line,
    expected_calibration_error,
    reliability,
)
from pneumonia_core.evaluation.document import headline
from pneumonia_core.evaluation.measures import auroc_standard_error
from pneumonia_core.findings import (
    BACTERIAL,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    VIRAL,
    Thresholds,
    bacterial_share,
    finding_labels,
    p_pneumonia,
)

HALVES = Thresholds(0.5, 0.5)


def binary(labels: np.ndarray, probabilities: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
    if task == "pneumonia_vs_normal":
        return labels != NORMAL, p_pneumonia(probabilities)
    sick = labels != NORMAL
    return labels[sick] == BACTERIAL, bacterial_share(probabilities)[sick]


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
    well, ill = effective_patients(index[~positive]), effective_patients(index[positive])
    pairs = effective_pairs(ill, well)
    values: dict[str, list[float]] = {"auroc": [], "auprc": [], "three": []}
    for weights, _ in patient_resamples(labels, index, 40, 5):
        for row in weights:
            values["auroc"].append(reference.roc_auc_score(positive, score, sample_weight=row))
            values["auprc"].append(reference.average_precision_score(positive, score, sample_weight=row))
            right = finding_labels(probabilities, HALVES) == labels
            values["three"].append(np.average(right, weights=row))
    assert report["tasks"]["pneumonia_vs_normal"]["auroc"] == pytest.approx(
        estimate(np.array(values["auroc"]), pairs).as_json()
    )
    assert report["tasks"]["pneumonia_vs_normal"]["auprc"] == pytest.approx(
        estimate(np.array(values["auprc"]), min(pairs, ill)).as_json()
    )
    assert report["three_class"]["accuracy"] == pytest.approx(
        estimate(np.array(values["three"]), effective_patients(index)).as_json()
    )


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
    """Ten copies of each image add no evidence: the interval must not shrink."""
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


@pytest.mark.parametrize("kinds_known", [True, False])
def test_pneumonia_of_unknown_kind_counts_against_normal_alone(kinds_known: bool) -> None:
    labels, probabilities, patients = scored(300)
    hidden = (labels != NORMAL) & ((np.arange(300) % 2 == 0) | (not kinds_known))
    report = evaluate(
        np.where(hidden, PNEUMONIA_UNKNOWN_KIND, labels), probabilities, patients, HALVES, bootstrap=20
    )
    json.dumps(report, allow_nan=False)
    whole = evaluate(labels, probabilities, patients, HALVES, bootstrap=20)
    known = evaluate(labels[~hidden], probabilities[~hidden], patients[~hidden], HALVES, bootstrap=20)
    task = report["tasks"]["pneumonia_vs_normal"]
    for name in ("auroc", "accuracy", "sensitivity", "specificity"):
        assert task[name]["value"] == whole["tasks"]["pneumonia_vs_normal"][name]["value"]
    assert report["images_by_class"]["pneumonia_unknown_kind"] == hidden.sum()
    kind, accuracy = report["tasks"]["bacterial_vs_viral"], report["three_class"]["accuracy"]
    if kinds_known:
        assert kind["auroc"]["value"] == known["tasks"]["bacterial_vs_viral"]["auroc"]["value"]
        assert accuracy["value"] == known["three_class"]["accuracy"]["value"]
    else:
        assert kind["auroc"] == accuracy == {"value": None, "low": None, "high": None}
        assert headline(report)["three_class_accuracy"] is None


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


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 3)), "no scored images"),
        ([0, 4], np.full((2, 3), 1 / 3), "labels are 0 to 3"),
        ([0, 1], np.full((2, 3), 0.5), "sum 1"),
        ([0, 1], np.full((2, 2), 0.5), "do not fit"),
        ([0, 1], np.full((2, 3), np.nan), "sum 1"),
    ],
)
def test_unusable_input_is_named(labels: list[int], probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        evaluate(labels, probabilities, list(range(len(labels))), HALVES)


@pytest.mark.parametrize("distinct", [10**6, 5])
def test_standard_error_of_an_auroc_is_that_of_delong_also_with_ties(distinct):
    rng = np.random.default_rng(1)
    truth = rng.random(300) < 0.3
    scores = np.round((rng.normal(0, 1, 300) + truth) * distinct)
    won = (scores[truth][:, None] > scores[~truth]) + 0.5 * (scores[truth][:, None] == scores[~truth])
    by_positive, by_negative = won.mean(axis=1), won.mean(axis=0)
    expected = by_positive.var(ddof=1) / truth.sum() + by_negative.var(ddof=1) / (~truth).sum()
    assert auroc_standard_error(truth, scores) == pytest.approx(np.sqrt(expected))


def test_standard_error_of_an_auroc_is_how_much_it_varies():
    rng = np.random.default_rng(2)
    truth = np.arange(200) < 80
    draws = [rng.normal(0, 1, 200) + truth for _ in range(400)]
    found = np.std([(draw[truth][:, None] > draw[~truth]).mean() for draw in draws])
    reported = np.mean([auroc_standard_error(truth, draw) for draw in draws])
    assert reported == pytest.approx(found, rel=0.1)
    assert np.isnan(auroc_standard_error(truth[79:], draws[0][79:]))
