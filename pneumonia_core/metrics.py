"""How good the scores are: every measure of the evaluation, with a patient-bootstrap interval.

A resample of the patients is a row of weights, the number of times that each image was drawn, and each
measure is computed on all rows at once: scikit-learn's functions take one set of weights at a time, and a
thousand resamples of twenty measures would take minutes. Row 0 weighs each image once and gives the values
themselves; the tests hold them against scikit-learn, which also gives the curves that are drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from pneumonia_core.bootstrap import LEVEL, Floats, measure, number, patient_resamples
from pneumonia_core.calibration import (
    RELIABILITY_BINS,
    brier,
    calibration_line,
    choose_thresholds,
    expected_calibration_error,
    prior_corrected,
    reliability,
)
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import Thresholds, bacterial_share, finding_labels, p_pneumonia
from pneumonia_core.labels import BACTERIAL, CLASSES, NORMAL

__all__ = ["choose_thresholds", "evaluate"]

PREVALENCES: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CURVE_POINTS: Final = 400


@dataclass(frozen=True)
class Task:
    """A question with two answers, put to the images `rows` (indices into the labelled set).

    `scores` rank them, `called` are those called positive at the threshold, `probability` is what
    calibration looks at; each of length len(rows).
    """

    name: str
    positive_name: str
    negative_name: str
    threshold: float
    rows: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    called: npt.NDArray[np.bool_]
    probability: Floats


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    thresholds: Thresholds,
    *,
    prevalence: float | None = None,
    calibrated_at: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The evaluation of scores on labelled images, ready for json.dump: the content of evaluation.json.

    `labels` int [N] index CLASSES, `probabilities` float32 [N, 3], `patients` [N] any keys. A *measure* is
    {"value", "low", "high"}: the value and its 95 % percentile interval over resamples of the patients
    (Efron and Tibshirani 1993), null where undefined (one class only, or no resample). An accuracy, sensitivity,
    specificity or recall of exactly 0 or 1 has an exact interval (bootstrap.measure); predictive values are resampled
    with the rest. Keys:

    - `images`, `patients`, `images_by_class`, `thresholds` {pneumonia, bacterial}
    - `bootstrap`: {level, resamples, used, skipped, seed, unit}; resamples that lack a class which the
      data have are skipped
    - `prevalence`: {evaluated, assumed, calibrated_at} shares of pneumonia images; assumed is null without
      `prevalence`
    - `tasks`: `pneumonia_vs_normal` (score p_pneumonia, all images) and `bacterial_vs_viral` (score
      p_bacterial / p_pneumonia, pneumonia images), each {positive, negative, images, positives, threshold,
      measures auroc, auprc, accuracy, sensitivity, specificity, sensitivity_at_specificity_90 and _95,
      calibration {slope, intercept, ece, brier, bins [{low, high, images, predicted, observed: measure}]},
      roc {fpr, tpr}, pr {recall, precision}}
    - `three_class`: {accuracy: measure, recall {class: measure}, confusion: int [truth][finding]}
    - `predictive_values`: [{prevalence, ppv: measure, npv: measure}] of the finding pneumonia

    With `prevalence`, the figures are those expected where that share of the images shows pneumonia: images
    are weighted to that share (accuracy, AUPRC and calibration change; AUROC, sensitivity and specificity do
    not), and calibration looks at probabilities corrected for the prior (calibration.prior_corrected), from the
    share `calibrated_at` in the images on which they were calibrated (default: that of these images). The
    findings stay those of the scores at the thresholds. Raises InvalidInput for unusable input.
    """
    truth, scores, patient_index = _checked(labels, probabilities, patients, prevalence)
    share_evaluated = float((truth != NORMAL).mean())
    prior = share_evaluated if calibrated_at is None else calibrated_at
    tasks = _tasks(truth, scores, thresholds, prevalence, prior)
    found = finding_labels(scores, thresholds)
    sampled, skipped = _sampled(truth, found, patient_index, tasks, prevalence, bootstrap, seed)
    counts = _patients_of_shares(truth, patient_index, tasks, prevalence)

    def measured(name: str) -> dict[str, float | None]:
        return measure(sampled[name], counts.get(name))

    return {
        "images": len(truth),
        "patients": int(patient_index.max()) + 1,
        "images_by_class": {name: int((truth == label).sum()) for label, name in enumerate(CLASSES)},
        "thresholds": {"pneumonia": float(thresholds.pneumonia), "bacterial": float(thresholds.bacterial)},
        "bootstrap": {
            "unit": "patient",
            "level": LEVEL,
            "resamples": bootstrap,
            "used": bootstrap - skipped,
            "skipped": skipped,
            "seed": seed,
        },
        "prevalence": {"evaluated": share_evaluated, "assumed": prevalence, "calibrated_at": prior},
        "tasks": {task.name: _task_report(task, truth, prevalence, sampled, measured) for task in tasks},
        "three_class": {
            "accuracy": measured("three_class.accuracy"),
            "recall": {name: measured(f"three_class.{name}") for name in CLASSES},
            "confusion": confusion_matrix(truth, found, labels=range(len(CLASSES))).tolist(),
        },
        "predictive_values": _predictive_values(sampled),
    }


def _checked(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, patients: npt.ArrayLike, prevalence: float | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    truth = np.asarray(labels, dtype=np.int64)
    scores = np.asarray(probabilities, dtype=np.float32)
    patient_index = np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1)
    if len(truth) == 0:
        raise InvalidInput("there are no scored images to evaluate.")
    if scores.shape != (len(truth), len(CLASSES)) or len(patient_index) != len(truth):
        raise InvalidInput(
            f"{len(truth)} labels do not fit probabilities of shape {scores.shape} and {len(patient_index)} patients."
        )
    if truth.min() < 0 or truth.max() >= len(CLASSES):
        raise InvalidInput(f"labels are 0 to {len(CLASSES) - 1}, not {truth.min()} to {truth.max()}.")
    if not (np.isfinite(scores).all() and np.abs(scores.sum(axis=1) - 1).max() < 1e-2 and scores.min() >= 0):
        raise InvalidInput("the probabilities of an image are not three numbers of sum 1.")
    if prevalence is not None and len({bool(label) for label in truth != NORMAL}) < 2:
        raise InvalidInput(
            "a prevalence can be assumed only where normal and pneumonia images are both present."
        )
    return truth, scores, patient_index


def _tasks(
    truth: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    thresholds: Thresholds,
    prevalence: float | None,
    prior: float,
) -> list[Task]:
    ill = truth != NORMAL
    total, share = p_pneumonia(scores), bacterial_share(scores)
    probability = np.clip(total.astype(np.float64), 0, 1)
    if prevalence is not None:
        probability = prior_corrected(probability, prior, prevalence)
    t1, t2 = np.float32(thresholds.pneumonia), np.float32(thresholds.bacterial)
    sick = np.flatnonzero(ill)
    return [
        Task(
            "pneumonia_vs_normal", "pneumonia", "normal", float(t1),
            np.arange(len(truth)), ill, total, total >= t1, probability,
        ),
        Task(
            "bacterial_vs_viral", "bacterial", "viral", float(t2),
            sick, truth[sick] == BACTERIAL, share[sick], share[sick] >= t2, share[sick].astype(np.float64),
        ),
    ]  # fmt: skip


def _sampled(
    truth: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    tasks: list[Task],
    prevalence: float | None,
    bootstrap: int,
    seed: int,
) -> tuple[dict[str, Floats], int]:
    """Each measure on the data (row 0) and on every resample, and how many resamples were skipped."""
    blocks, skipped = [], 0
    for weights, incomplete in patient_resamples(truth, patient_index, bootstrap, seed):
        blocks.append(_measures(truth, found, tasks, _to_prevalence(weights, truth, prevalence)))
        skipped += incomplete
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}, skipped


def _to_prevalence(weights: Floats, truth: npt.NDArray[np.int64], prevalence: float | None) -> Floats:
    """Weights under which exactly `prevalence` of each row is pneumonia, their sums unchanged."""
    ill = truth != NORMAL
    if prevalence is None:
        return weights
    if not ill.any() or ill.all():
        raise InvalidInput(
            "a prevalence can be assumed only where normal and pneumonia images are both present."
        )
    total, sick = weights.sum(axis=1), weights[:, ill].sum(axis=1)
    for_ill, for_well = total * prevalence / sick, total * (1 - prevalence) / (total - sick)
    return weights * np.where(ill, for_ill[:, None], for_well[:, None])


def _measures(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], tasks: list[Task], weights: Floats
) -> dict[str, Floats]:
    """All measures by dotted name, each [R] or, for the reliability bins, [R, 10]."""
    right = found == truth
    measures = {"three_class.accuracy": weighted_share(right, weights)}
    for label, name in enumerate(CLASSES):
        measures[f"three_class.{name}"] = weighted_share(right[truth == label], weights[:, truth == label])
    for task in tasks:
        for name, values in _task_measures(task, weights[:, task.rows]).items():
            measures[f"{task.name}.{name}"] = values
    return measures


def _task_measures(task: Task, weights: Floats) -> dict[str, Floats]:
    positive, called = task.positive, task.called
    measures = ranking_measures(task.scores, positive, weights)
    measures["accuracy"] = weighted_share(called == positive, weights)
    measures["sensitivity"] = weighted_share(called[positive], weights[:, positive])
    measures["specificity"] = weighted_share(~called[~positive], weights[:, ~positive])
    curve = reliability(task.probability, positive, weights)
    both = positive.any() and not positive.all()
    undefined = np.full(len(weights), np.nan)
    measures["slope"], measures["intercept"] = (
        calibration_line(task.probability, positive, weights) if both else (undefined, undefined)
    )
    with np.errstate(invalid="ignore"):
        measures["ece"] = expected_calibration_error(curve)
        measures["brier"] = brier(task.probability, positive, weights)
    measures["bin_predicted"], measures["bin_observed"] = curve["predicted"], curve["observed"]
    return measures


def ranking_measures(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], weights: Floats
) -> dict[str, Floats]:
    """Area under the ROC curve, average precision, and sensitivity at a specificity of 90 and 95 % or more.

    Images of equal score are one step of the curves, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    ranked, hit = weights[:, order], positive[order]
    true_positives = np.cumsum(ranked * hit, axis=1)[:, ends]
    false_positives = np.cumsum(ranked * ~hit, axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = true_positives / true_positives[:, -1:]
        fall_out = false_positives / false_positives[:, -1:]
        precision = np.nan_to_num(true_positives / (true_positives + false_positives))
    steps = np.diff(sensitivity, axis=1, prepend=0)
    previous = sensitivity - steps
    measures = {
        "auroc": (np.diff(fall_out, axis=1, prepend=0) * (sensitivity + previous) / 2).sum(axis=1),
        "auprc": (steps * precision).sum(axis=1),
    }
    for percent in (90, 95):
        allowed = fall_out <= 1 - percent / 100 + 1e-9
        best = np.where(allowed, sensitivity, 0).max(axis=1, initial=0)
        measures[f"sensitivity_at_specificity_{percent}"] = best
    if positive.all() or not positive.any():
        return {name: np.full(len(weights), np.nan) for name in measures}
    return measures


def weighted_share(happened: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        share: Floats = (weights @ happened.astype(np.float64)) / weights.sum(axis=1)
    return share


def _patients_of_shares(
    truth: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    tasks: list[Task],
    prevalence: float | None,
) -> dict[str, float]:
    """Of how many patients the images are that each share is over, by its dotted name."""
    weights = _to_prevalence(np.ones((1, len(truth))), truth, prevalence)[0]

    def patients(rows: npt.NDArray[Any]) -> float:
        return _effective_patients(patient_index[rows], weights[rows])

    counts = {"three_class.accuracy": patients(np.arange(len(truth)))}
    for label, name in enumerate(CLASSES):
        counts[f"three_class.{name}"] = patients(np.flatnonzero(truth == label))
    for task in tasks:
        counts[f"{task.name}.accuracy"] = patients(task.rows)
        counts[f"{task.name}.sensitivity"] = patients(task.rows[task.positive])
        counts[f"{task.name}.specificity"] = patients(task.rows[~task.positive])
    return counts


def _effective_patients(patient_index: npt.NDArray[np.int64], weights: Floats) -> float:
    """The patients of these images; where a prevalence weighs some of them more, as many equal ones as say as much
    (Kish, Survey Sampling, 1965), which is what an exact interval of weighted shares goes by (Korn and Graubard,
    Survey Methodology 24, 1998)."""
    if not len(weights):
        return 0.0
    _, of, images = np.unique(patient_index, return_inverse=True, return_counts=True)
    each = np.bincount(of, weights) / images
    return float(each.sum() ** 2 / np.square(each).sum())


def _task_report(
    task: Task,
    truth: npt.NDArray[np.int64],
    prevalence: float | None,
    sampled: dict[str, Floats],
    measured: Callable[[str], dict[str, float | None]],
) -> dict[str, Any]:
    def measures(*names: str) -> dict[str, Any]:
        return {name: measured(f"{task.name}.{name}") for name in names}

    weights = _to_prevalence(np.ones((1, len(truth))), truth, prevalence)[0, task.rows]
    return {
        "positive": task.positive_name,
        "negative": task.negative_name,
        "images": len(task.rows),
        "positives": int(task.positive.sum()),
        "threshold": task.threshold,
        **measures("auroc", "auprc", "accuracy", "sensitivity", "specificity"),
        **measures("sensitivity_at_specificity_90", "sensitivity_at_specificity_95"),
        "calibration": {**measures("slope", "intercept", "ece", "brier"), "bins": _bins(task, sampled)},
        **_curves(task, weights),
    }


def _bins(task: Task, sampled: dict[str, Floats]) -> list[dict[str, Any]]:
    indices = np.minimum((task.probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    counts = np.bincount(indices, minlength=RELIABILITY_BINS)
    return [
        {
            "low": k / RELIABILITY_BINS,
            "high": (k + 1) / RELIABILITY_BINS,
            "images": int(counts[k]),
            "predicted": number(sampled[f"{task.name}.bin_predicted"][0, k]),
            "observed": measure(sampled[f"{task.name}.bin_observed"][:, k]),
        }
        for k in range(RELIABILITY_BINS)
    ]


def _curves(task: Task, weights: Floats) -> dict[str, Any]:
    """ROC and precision-recall curves from scikit-learn, thinned to what a figure can show."""
    if not task.positive.any() or task.positive.all():
        return {"roc": None, "pr": None}
    fpr, tpr, _ = roc_curve(task.positive, task.scores, sample_weight=weights)
    precision, recall, _ = precision_recall_curve(
        task.positive, task.scores, sample_weight=weights, drop_intermediate=True
    )
    return {
        "roc": {"fpr": _thinned(fpr), "tpr": _thinned(tpr)},
        "pr": {"recall": _thinned(recall[::-1]), "precision": _thinned(precision[::-1])},
    }


def _thinned(curve: Floats) -> list[float]:
    kept = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return [round(float(value), 6) for value in curve[kept]]


def _predictive_values(sampled: dict[str, Floats]) -> list[dict[str, Any]]:
    """What a finding is worth by Bayes' rule from sensitivity and specificity, over prevalence."""
    sensitivity = sampled["pneumonia_vs_normal.sensitivity"]
    specificity = sampled["pneumonia_vs_normal.specificity"]
    rows = []
    for prevalence in PREVALENCES:
        ill, well = prevalence, 1 - prevalence
        with np.errstate(invalid="ignore"):
            ppv = sensitivity * ill / (sensitivity * ill + (1 - specificity) * well)
            npv = specificity * well / (specificity * well + (1 - sensitivity) * ill)
        rows.append({"prevalence": prevalence, "ppv": measure(ppv), "npv": measure(npv)})
    return rows
