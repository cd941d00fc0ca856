"""The patient who weighs the most in an AUROC: how it changes when all images of one are left out."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pneumonia_core.evaluation.bootstrap import Floats
from pneumonia_core.evaluation.document import HeaviestPatient
from pneumonia_core.evaluation.measures import Task, tasks_of
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import Thresholds

# An AUROC does not depend on them.
_ANY_THRESHOLDS: Final = Thresholds(0.5, 0.5)


def heaviest_patients(scored: ScoredSet, names: Sequence[str]) -> list[HeaviestPatient]:
    """For each task the patient without whom its AUROC changes the most.

    `names` are those of the images [N]. A patient is named by an image, because a patient's key may be that
    of a hospital. A task without AUROC has no row, nor has one of a single patient. This is the jackknife by
    patient (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11).
    """
    rows: list[HeaviestPatient] = []
    for task in tasks_of(scored.labels, scored.probabilities, _ANY_THRESHOLDS, None, 0.5):
        patients = scored.patient_index[task.rows]
        if task.positive.all() or not task.positive.any():
            continue
        whole, without = leave_one_patient_out(task, patients)
        if np.isnan(without).all():
            continue
        heaviest = int(np.nanargmax(np.abs(without - whole)))
        of_patient = np.flatnonzero(patients == heaviest)
        rows.append(
            {
                "task": task.name,
                "image": names[task.rows[of_patient[0]]],
                "images": len(of_patient),
                "auroc": whole,
                "auroc_without": float(without[heaviest]),
            }
        )
    return rows


def leave_one_patient_out(task: Task, patients: npt.NDArray[np.int64]) -> tuple[float, Floats]:
    """The AUROC of a task, and those without each patient [P]; NaN where only one answer is left.

    `patients` int [N] are numbers of the task's images. An AUROC is the share of pairs of a positive and a
    negative image that are ranked rightly, ties by half (Mann and Whitney 1947). So it is enough to take off
    the pairs of each patient.
    """
    count, positive = int(patients.max()) + 1, task.positive
    right = _right_pairs_of_each(task.scores, positive)
    positives, negatives = positive.sum(), (~positive).sum()
    total = right[positive].sum()
    left = total - np.bincount(patients, right, count) + _pairs_within(task, patients, count)
    left_positives = positives - np.bincount(patients, positive, count)
    left_negatives = negatives - np.bincount(patients, ~positive, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        without: Floats = left / (left_positives * left_negatives)
    without[np.bincount(patients, minlength=count) == 0] = np.nan
    return float(total / (positives * negatives)), without


def _right_pairs_of_each(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> Floats:
    """The rightly ranked pairs that each image is in, float64 [N]."""
    ranks = rankdata(scores)
    right = np.empty(len(scores))
    right[positive] = ranks[positive] - rankdata(scores[positive])
    right[~positive] = positive.sum() - (ranks[~positive] - rankdata(scores[~positive]))
    return right


def _pairs_within(task: Task, patients: npt.NDArray[np.int64], count: int) -> Floats:
    """The rightly ranked pairs of two images of one patient, float64 [P]; taken off twice, they come back."""
    within = np.zeros(count)
    both = np.intersect1d(patients[task.positive], patients[~task.positive])
    for patient in both:
        chosen = patients == patient
        positive = task.positive[chosen]
        within[patient] = _right_pairs_of_each(task.scores[chosen], positive)[positive].sum()
    return within
