"""The evaluation of scores: every measure with its interval over patients, and the curves."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import (
    Estimate,
    Floats,
    bootstrap_facts,
    effective_patients,
    estimate,
    number,
    ratio_limits,
)
from pneumonia_core.evaluation.calibration_measures import RELIABILITY_BINS
from pneumonia_core.evaluation.document import (
    CalibrationFigures,
    Evaluation,
    Measure,
    PrecisionRecallCurve,
    PredictiveValues,
    ReliabilityBin,
    RocCurve,
    TaskFigures,
    ThreeClassFigures,
)
from pneumonia_core.evaluation.measures import (
    Task,
    effective_sizes,
    sampled_measures,
    tasks_of,
    to_prevalence,
)
from pneumonia_core.evaluation.scored_set import ScoredSet, images_by_label
from pneumonia_core.findings import CLASSES, NORMAL, Thresholds, finding_labels

PREVALENCES: Final = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CURVE_POINTS: Final = 400


def evaluate(
    scored: ScoredSet,
    thresholds: Thresholds,
    *,
    prevalence: float | None = None,
    calibrated_at: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """The evaluation of a scored set, as evaluation.json holds it.

    Intervals are 95 % intervals from `bootstrap` resamples of the patients: exact ones of shares and areas
    under curves (`bootstrap.estimate`), and from these the ones of predictive values
    (`bootstrap.ratio_limits`); percentile intervals of calibration measures. Undefined values are null: those
    of a single class, or without resamples. Images whose kind of pneumonia is unknown count in the
    measures of pneumonia alone.

    With `prevalence`, the figures are those expected where that share of the images shows pneumonia. Images
    are weighted to that share: accuracy, AUPRC and calibration change; AUROC, sensitivity and specificity do
    not. Calibration measures use probabilities corrected for the prior (`calibration.prior_corrected`), from
    the share `calibrated_at` of pneumonia in the images that the model was calibrated on (default: in these
    images). Findings are always those of the uncorrected scores. Raises InvalidInput where a prevalence
    cannot be assumed.
    """
    truth, patient_index = scored.labels, scored.patient_index
    share_evaluated = float((truth != NORMAL).mean())
    if prevalence is not None and not 0 < share_evaluated < 1:
        raise InvalidInput(
            "a prevalence can be assumed only where normal and pneumonia images are both present."
        )
    prior = share_evaluated if calibrated_at is None else calibrated_at
    tasks = tasks_of(truth, scored.probabilities, thresholds, prevalence, prior)
    found = finding_labels(scored.probabilities, thresholds)
    sampled, skipped = sampled_measures(truth, found, patient_index, tasks, prevalence, bootstrap, seed)
    sizes = effective_sizes(truth, patient_index, tasks, prevalence)

    def estimated(name: str) -> Estimate:
        return estimate(sampled[name], sizes.get(name))

    weights = to_prevalence(np.ones((1, len(truth))), truth, prevalence)[0]
    return {
        "images": len(truth),
        "patients": int(patient_index.max()) + 1,
        "images_by_class": images_by_label(truth),
        "thresholds": {"pneumonia": float(thresholds.pneumonia), "bacterial": float(thresholds.bacterial)},
        "bootstrap": bootstrap_facts(bootstrap, skipped, seed),
        "prevalence": {"evaluated": share_evaluated, "assumed": prevalence, "calibrated_at": prior},
        "tasks": {
            task.name: _task_figures(task, patient_index, weights, sampled, estimated) for task in tasks
        },
        "three_class": _three_class_figures(truth, found, estimated),
        "predictive_values": _predictive_values(
            estimated("pneumonia_vs_normal.sensitivity"), estimated("pneumonia_vs_normal.specificity")
        ),
    }


def _task_figures(
    task: Task,
    patient_index: npt.NDArray[np.int64],
    weights: Floats,
    sampled: dict[str, Floats],
    estimated: Callable[[str], Estimate],
) -> TaskFigures:
    def measure(name: str) -> Measure:
        return estimated(f"{task.name}.{name}").as_json()

    calibration: CalibrationFigures = {
        "slope": measure("slope"),
        "intercept": measure("intercept"),
        "ece": measure("ece"),
        "brier": measure("brier"),
        "bins": _bins(task, patient_index[task.rows], weights[task.rows], sampled),
    }
    roc, pr = _curves(task, weights[task.rows])
    return {
        "positive": task.positive_name,
        "negative": task.negative_name,
        "images": len(task.rows),
        "positives": int(task.positive.sum()),
        "threshold": task.threshold,
        "auroc": measure("auroc"),
        "auprc": measure("auprc"),
        "accuracy": measure("accuracy"),
        "sensitivity": measure("sensitivity"),
        "specificity": measure("specificity"),
        "sensitivity_at_specificity_90": measure("sensitivity_at_specificity_90"),
        "sensitivity_at_specificity_95": measure("sensitivity_at_specificity_95"),
        "calibration": calibration,
        "roc": roc,
        "pr": pr,
    }


def _three_class_figures(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], estimated: Callable[[str], Estimate]
) -> ThreeClassFigures:
    return {
        "accuracy": estimated("three_class.accuracy").as_json(),
        "recall": {name: estimated(f"three_class.{name}").as_json() for name in CLASSES},
        "confusion": confusion_matrix(truth, found, labels=range(len(CLASSES))).tolist(),
    }


def _bins(
    task: Task, patient_index: npt.NDArray[np.int64], weights: Floats, sampled: dict[str, Floats]
) -> list[ReliabilityBin]:
    """The reliability bins; `patient_index` and `weights` are those of the task's images."""
    indices = np.minimum((task.probability * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    bins: list[ReliabilityBin] = []
    for k in range(RELIABILITY_BINS):
        inside = indices == k
        observed = sampled[f"{task.name}.bin_observed"][:, k]
        bins.append(
            {
                "low": k / RELIABILITY_BINS,
                "high": (k + 1) / RELIABILITY_BINS,
                "images": int(inside.sum()),
                "predicted": number(sampled[f"{task.name}.bin_predicted"][0, k]),
                "observed": estimate(
                    observed, effective_patients(patient_index[inside], weights[inside])
                ).as_json(),
            }
        )
    return bins


def _curves(task: Task, weights: Floats) -> tuple[RocCurve, PrecisionRecallCurve] | tuple[None, None]:
    """ROC and precision-recall curve, thinned for a figure; None where one of the answers is absent."""
    if not task.positive.any() or task.positive.all():
        return None, None
    fpr, tpr, _ = roc_curve(task.positive, task.scores, sample_weight=weights)
    precision, recall, _ = precision_recall_curve(
        task.positive, task.scores, sample_weight=weights, drop_intermediate=True
    )
    return (
        RocCurve(fpr=_thinned(fpr), tpr=_thinned(tpr)),
        PrecisionRecallCurve(recall=_thinned(recall[::-1]), precision=_thinned(precision[::-1])),
    )


def _thinned(curve: Floats) -> list[float]:
    kept = np.unique(np.linspace(0, len(curve) - 1, CURVE_POINTS).round().astype(int))
    return [round(float(value), 6) for value in curve[kept]]


def _predictive_values(sensitivity: Estimate, specificity: Estimate) -> list[PredictiveValues]:
    """Predictive values over prevalence, by Bayes' rule from sensitivity and specificity.

    Each follows from one ratio of a share of errors to a share of hits, and its interval from that of the
    ratio.
    """
    missed, false_alarms = _complement(sensitivity), _complement(specificity)
    return [
        {
            "prevalence": prevalence,
            "ppv": _predictive_value(false_alarms, sensitivity, (1 - prevalence) / prevalence),
            "npv": _predictive_value(missed, specificity, prevalence / (1 - prevalence)),
        }
        for prevalence in PREVALENCES
    ]


def _complement(share: Estimate) -> Estimate:
    def less_than_one(value: float | None) -> float | None:
        return None if value is None else 1 - value

    return Estimate(less_than_one(share.value), less_than_one(share.high), less_than_one(share.low))


def _predictive_value(errors: Estimate, hits: Estimate, odds_against: float) -> Measure:
    """hits / (hits + odds_against * errors), null where nothing has this finding."""
    if errors.value is None or hits.value is None or errors.value + hits.value == 0:
        return Estimate(None, None, None).as_json()
    value = hits.value / (hits.value + odds_against * errors.value)
    low, high = ratio_limits(errors, hits)
    return Estimate(
        value, number(1 / (1 + odds_against * high)), number(1 / (1 + odds_against * low))
    ).as_json()
