"""The patient who weighs the most in an AUROC: how it changes when all images of one are left out."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import Floats
from pneumonia_core.evaluation.document import HeaviestPatient
from pneumonia_core.evaluation.measures import Task, right_pairs, tasks_of
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
        patients = scored.subset(task.rows).patient_index
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

    `patients` int [N] are the numbers of the patients of the task's images. An AUROC is a share of pairs
    (`right_pairs`), so it is enough to take off those of each patient.
    """
    count, positive = int(patients.max()) + 1, task.positive
    right = right_pairs(task.scores, positive)
    positives, negatives = positive.sum(), (~positive).sum()
    total = right[positive].sum()
    left = total - np.bincount(patients, right, count) + _pairs_within(task, patients, count)
    left_positives = positives - np.bincount(patients, positive, count)
    left_negatives = negatives - np.bincount(patients, ~positive, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        without: Floats = left / (left_positives * left_negatives)
    return float(total / (positives * negatives)), without


def _pairs_within(task: Task, patients: npt.NDArray[np.int64], count: int) -> Floats:
    """The rightly ranked pairs of two images of one patient, float64 [P]; taken off twice, they come back."""
    within = np.zeros(count)
    both = np.intersect1d(patients[task.positive], patients[~task.positive])
    for patient in both:
        chosen = patients == patient
        positive = task.positive[chosen]
        within[patient] = right_pairs(task.scores[chosen], positive)[positive].sum()
    return within
