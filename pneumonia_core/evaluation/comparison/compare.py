"""Differences between two models on the same images, paired: both are measured on the same resamples."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.evaluation.bootstrap import Floats, bootstrap_facts, estimate, number
from pneumonia_core.evaluation.comparison.document import Comparison, Difference, McNemar
from pneumonia_core.evaluation.measures import sampled_measures, tasks_of
from pneumonia_core.evaluation.scored_set import ScoredSet, of_three_classes
from pneumonia_core.evaluation.table_scores import TableScores
from pneumonia_core.findings import NORMAL, Thresholds, finding_labels

COMPARED: Final = (
    "pneumonia_vs_normal.auroc",
    "pneumonia_vs_normal.accuracy",
    "pneumonia_vs_normal.sensitivity",
    "pneumonia_vs_normal.specificity",
    "bacterial_vs_viral.auroc",
    "bacterial_vs_viral.accuracy",
    "three_class.accuracy",
)


@dataclass(frozen=True)
class ModelScores:
    """The scores that a model gave a labelled set, and its thresholds."""

    model_id: str
    thresholds: Thresholds
    scores: TableScores


def compare(first: ModelScores, second: ModelScores, bootstrap: int = 1000, seed: int = 0) -> Comparison:
    """The differences of two models on the images of one labelled set that both could score.

    Each model is measured at its own thresholds, on the same resamples of the patients (the paired bootstrap
    of Efron and Tibshirani 1993). Raises PneumoniaError where no image has both scores.
    """
    one, other, alone = _scored_by_both(first.scores, second.scores)
    sampled, skipped = _sampled(one, first.thresholds, bootstrap, seed)
    against, _ = _sampled(other, second.thresholds, bootstrap, seed)
    return {
        "first": first.model_id,
        "second": second.model_id,
        "images": len(one.labels),
        "patients": len(np.unique(one.patients)),
        "scored_by_one_alone": alone,
        "bootstrap": bootstrap_facts(bootstrap, skipped, seed),
        "differences": [_difference(name, sampled[name], against[name]) for name in COMPARED],
        "mcnemar": mcnemar_tests(
            one.labels,
            finding_labels(one.probabilities, first.thresholds),
            finding_labels(other.probabilities, second.thresholds),
        ),
    }


def mcnemar_tests(
    truth: npt.NDArray[np.int64], first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> list[McNemar]:
    """McNemar's tests of two models' findings int [N]: pneumonia or normal, and the three classes.

    Of the images on which one model alone is right, each is right on half if the two are equally good. The
    test is the exact binomial one (McNemar, Psychometrika 12, 1947). It takes images for independent; where
    patients have several, the intervals of the accuracies are the better judge.
    """
    of_class = of_three_classes(truth)
    return [
        _mcnemar(
            "pneumonia_vs_normal",
            (first != NORMAL) == (truth != NORMAL),
            (second != NORMAL) == (truth != NORMAL),
        ),
        _mcnemar("three_class", (first == truth)[of_class], (second == truth)[of_class]),
    ]


def _scored_by_both(first: TableScores, second: TableScores) -> tuple[ScoredSet, ScoredSet, int]:
    """The images that both could score, in one order, and how many only one could."""
    both, places, others = np.intersect1d(
        first.positions, second.positions, assume_unique=True, return_indices=True
    )
    if not len(both):
        raise PneumoniaError("no image was scored by both models, so there is nothing to compare.")
    alone = len(first.positions) + len(second.positions) - 2 * len(both)
    return first.scored.subset(places), second.scored.subset(others), alone


def _sampled(
    scored: ScoredSet, thresholds: Thresholds, bootstrap: int, seed: int
) -> tuple[dict[str, Floats], int]:
    """Each measure on the images and on every resample. Equal seeds draw the same patients."""
    truth = scored.labels
    tasks = tasks_of(truth, scored.probabilities, thresholds, None, 0.5)
    found = finding_labels(scored.probabilities, thresholds)
    return sampled_measures(truth, found, scored.patient_index, tasks, None, bootstrap, seed)


def _difference(name: str, first: Floats, second: Floats) -> Difference:
    return {
        "measure": name,
        "first": number(first[0]),
        "second": number(second[0]),
        "difference": estimate(second - first).as_json(),
    }


def _mcnemar(question: str, first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    first_alone, second_alone = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = first_alone + second_alone
    return {
        "question": question,
        "first_alone_right": first_alone,
        "second_alone_right": second_alone,
        "p_value": float(binomtest(first_alone, discordant, 0.5).pvalue) if discordant else None,
    }
