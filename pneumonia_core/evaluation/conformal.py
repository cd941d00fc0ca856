"""Findings sets: cuts that keep a chosen coverage, and the coverage measured on labelled images."""

import math

import numpy as np

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import (
    Floats,
    effective_patients,
    estimate,
    patient_resamples,
)
from pneumonia_core.evaluation.document import FindingsSetFigures
from pneumonia_core.evaluation.measures import weighted_mean
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import CLASSES, Conformal, Thresholds, always_in_set, in_findings_set


def fit_conformal(scored: ScoredSet, thresholds: Thresholds, coverage: float) -> Conformal:
    """The cuts with which findings sets hold the truth of `coverage` of the images of each class.

    This is split conformal prediction by class (Vovk, Conditional Validity of Inductive Conformal Predictors,
    ACML 2012), with the score of the least ambiguous sets (Sadinle, Lei and Wasserman, JASA 114, 2019): an
    image conforms to a class as much as its probability. It conforms entirely to a class that is always in
    its set, so a class that is found more often than `coverage` is covered as often as it is found.

    The scored images must not be of the training set. The coverage holds on average for further images like
    them. Raises InvalidInput where `coverage` does not lie between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise InvalidInput(f"the coverage is {coverage:g}; it must lie between 0 and 1, both excluded.")
    conformity = np.where(always_in_set(scored.probabilities, thresholds), 1.0, scored.probabilities)
    cuts = [_cut(conformity[scored.labels == label, label], coverage) for label in range(len(CLASSES))]
    return Conformal(coverage, *cuts)


def _cut(conformity: Floats, coverage: float) -> float:
    """The r-th smallest of the n values, r = (n + 1) (1 - coverage); 0 where n is too small to rule out."""
    rank = math.floor((len(conformity) + 1) * (1 - coverage) + 1e-9)
    return float(np.sort(conformity)[rank - 1]) if rank else 0.0


def findings_set_figures(
    scored: ScoredSet, thresholds: Thresholds, conformal: Conformal, bootstrap: int = 1000, seed: int = 0
) -> FindingsSetFigures:
    """The share of the images of each class whose findings set holds the truth, and the mean size of a set.

    Intervals are over `bootstrap` resamples of the patients, as in `evaluate`.
    """
    truth, patients = scored.labels, scored.patient_index
    members = in_findings_set(scored.probabilities, thresholds, conformal)
    sizes = members.sum(axis=1).astype(np.float64)
    of_class = [truth == label for label in range(len(CLASSES))]
    measured = [(members[:, label], chosen) for label, chosen in enumerate(of_class)]
    measured.append((sizes, np.ones(len(truth), bool)))
    # Block by block: the weights of all resamples are thousands of bytes an image.
    blocks = [
        [weighted_mean(values[chosen], weights[:, chosen]) for values, chosen in measured]
        for weights, _ in patient_resamples(truth, patients, bootstrap, seed)
    ]
    *covered, mean_size = map(np.concatenate, zip(*blocks, strict=True))
    worth = [effective_patients(patients[chosen]) for chosen in of_class]
    return {
        "coverage": conformal.coverage,
        "covered": {
            name: estimate(shares, each).as_json()
            for name, shares, each in zip(CLASSES, covered, worth, strict=True)
        },
        "mean_size": estimate(mean_size).as_json(),
        "images_by_size": np.bincount(sizes.astype(int), minlength=len(CLASSES) + 1)[1:].tolist(),
    }
