"""How good the scores are: every measure of the evaluation, with a patient-bootstrap interval, and the curves."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import LEVEL, Floats, estimate, number
from pneumonia_core.evaluation.calibration_measures import RELIABILITY_BINS
from pneumonia_core.evaluation.measures import (
    Task,
    patients_of_shares,
    sampled_measures,
    tasks_of,
    to_prevalence,
)
from pneumonia_core.findings import CLASSES, NORMAL, Thresholds, finding_labels

PREVALENCES: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CURVE_POINTS: Final = 400


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
    specificity or recall of exactly 0 or 1 has an exact interval (bootstrap.measure), and so has a predictive value that
    follows from one. Keys:

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
    tasks = tasks_of(truth, scores, thresholds, prevalence, prior)
    found = finding_labels(scores, thresholds)
    sampled, skipped = sampled_measures(truth, found, patient_index, tasks, prevalence, bootstrap, seed)
    counts = patients_of_shares(truth, patient_index, tasks, prevalence)

    def measured(name: str) -> dict[str, float | None]:
        return estimate(sampled[name], counts.get(name))

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
        "predictive_values": _predictive_values(
            sampled,
            measured("pneumonia_vs_normal.sensitivity"),
            measured("pneumonia_vs_normal.specificity"),
        ),
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


def _task_report(
    task: Task,
    truth: npt.NDArray[np.int64],
    prevalence: float | None,
    sampled: dict[str, Floats],
    measured: Callable[[str], dict[str, float | None]],
) -> dict[str, Any]:
    def measures(*names: str) -> dict[str, Any]:
        return {name: measured(f"{task.name}.{name}") for name in names}

    weights = to_prevalence(np.ones((1, len(truth))), truth, prevalence)[0, task.rows]
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
            "observed": estimate(sampled[f"{task.name}.bin_observed"][:, k]),
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


def _predictive_values(
    sampled: dict[str, Floats], sensitivity: dict[str, float | None], specificity: dict[str, float | None]
) -> list[dict[str, Any]]:
    """What a finding is worth by Bayes' rule from sensitivity and specificity, over prevalence.

    Where one of them is perfect, so is a predictive value in every resample, and at a low prevalence would claim most:
    it goes as far as the exact intervals of the two do.
    """
    rows = []
    for prevalence in PREVALENCES:
        limits = _by_bayes(_ends(sensitivity), _ends(specificity), prevalence)
        values = _by_bayes(
            sampled["pneumonia_vs_normal.sensitivity"], sampled["pneumonia_vs_normal.specificity"], prevalence
        )
        row = {name: _as_sure_as(limits[name], estimate(values[name])) for name in values}
        rows.append({"prevalence": prevalence, **row})
    return rows


def _ends(measured: dict[str, float | None]) -> Floats:
    return np.array([measured["low"], measured["high"]], np.float64)


def _by_bayes(sensitivity: Floats, specificity: Floats, prevalence: float) -> dict[str, Floats]:
    ill, well = prevalence, 1 - prevalence
    with np.errstate(invalid="ignore"):
        return {
            "ppv": sensitivity * ill / (sensitivity * ill + (1 - specificity) * well),
            "npv": specificity * well / (specificity * well + (1 - sensitivity) * ill),
        }


def _as_sure_as(limits: Floats, measured: dict[str, float | None]) -> dict[str, float | None]:
    """The measure, where it is 0 or 1 with what the limits, low and high, leave open."""
    low, high = limits
    if measured["value"] == 1:
        return {**measured, "low": number(low)}
    if measured["value"] == 0:
        return {**measured, "high": number(high)}
    return measured
