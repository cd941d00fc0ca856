"""The patient who weighs the most in an AUROC is found, and named by an image."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.scores import evaluate, scored

from pneumonia_core.evaluation.groups.patients import heaviest_patients, leave_one_patient_out
from pneumonia_core.evaluation.measures import tasks_of
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL, Thresholds
from pneumonia_core.reports.evaluation_text import evaluation_lines

HALVES = Thresholds(0.5, 0.5)


def names(count):
    return [f"file:///{number}.png" for number in range(count)]


@pytest.mark.parametrize("per_patient", [1, 3, 7])
def test_aurocs_without_each_patient_are_those_of_the_other_images(per_patient):
    labels, probabilities, _ = scored(120, skill=0.7)
    # Ties, and patients with images of either answer.
    probabilities = np.round(probabilities, 1) + np.float32(0.01)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    patients = np.arange(120) // per_patient
    for task in tasks_of(labels, probabilities, HALVES, None, 0.5):
        whole, without = leave_one_patient_out(task, patients[task.rows])
        assert whole == pytest.approx(roc_auc_score(task.positive, task.scores))
        for patient in np.unique(patients[task.rows]):
            others = patients[task.rows] != patient
            expected = roc_auc_score(task.positive[others], task.scores[others])
            assert without[patient] == pytest.approx(expected)


def test_a_patient_whose_many_images_are_all_wrong_is_the_heaviest():
    labels, probabilities, patients = scored(300, skill=2.5)
    viral = np.flatnonzero(labels == VIRAL)[:6]
    patients[viral] = patients.max() + 1
    probabilities[viral] = [0.0, 1.0, 0.0]
    rows = {
        row["task"]: row
        for row in heaviest_patients(ScoredSet.of(labels, patients, probabilities), names(300))
    }
    row = rows["bacterial_vs_viral"]
    assert (row["images"], row["image"]) == (6, f"file:///{viral[0]}.png")
    assert row["auroc_without"] > row["auroc"] + 0.02
    figures = evaluate(labels, probabilities, patients, HALVES, bootstrap=60)
    lines = evaluation_lines({**figures, "heaviest_patients": list(rows.values())})
    assert [line for line in lines if "without" in line] == [
        f"AUROC of bacterial vs viral without the 6 images of one patient (file:///{viral[0]}.png): "
        f"{row['auroc_without']:.3f} instead of {row['auroc']:.3f}"
    ]


def test_a_patient_who_hardly_moves_the_figure_is_not_told_of_on_the_terminal():
    labels, probabilities, patients = scored(600)
    figures = evaluate(labels, probabilities, patients, HALVES, bootstrap=60)
    rows = heaviest_patients(ScoredSet.of(labels, patients, probabilities), names(600))
    assert len(rows) == 2
    assert not any("without" in line for line in evaluation_lines({**figures, "heaviest_patients": rows}))


@pytest.mark.parametrize("labels", [[NORMAL, NORMAL], [NORMAL, PNEUMONIA_UNKNOWN_KIND], [BACTERIAL, VIRAL]])
def test_without_two_patients_of_each_answer_there_is_no_row(labels):
    scores = np.full((2, 3), 1 / 3, np.float32)
    assert heaviest_patients(ScoredSet.of(labels, ["a", "b"], scores), names(2)) == []
