"""The measures within parts of the images, which show where a model is worse than on average."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import (
    Floats,
    effective_pairs,
    effective_patients,
    estimate,
    patient_resamples,
)
from pneumonia_core.evaluation.document import Measure, Subgroup
from pneumonia_core.evaluation.groups.factors import in_order
from pneumonia_core.evaluation.measures import ranking_measures, weighted_mean
from pneumonia_core.evaluation.scored_set import ScoredSet, of_known_kind
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL, Thresholds, bacterial_share, p_pneumonia


def subgroups(
    scored: ScoredSet,
    thresholds: Thresholds,
    factors: Mapping[str, Sequence[str]],
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """The measures of each group of each factor; `factors` give each image a group [N].

    Intervals are over resamples of the group's patients (`bootstrap.estimate`). A measure is null where the
    group lacks a class.
    """
    rows = []
    for factor, groups in factors.items():
        names = np.array(groups, dtype=str)
        for group in in_order(groups):
            rows.append(_subgroup(factor, group, scored.subset(names == group), thresholds, bootstrap, seed))
    return rows


def _subgroup(
    factor: str, group: str, scored: ScoredSet, thresholds: Thresholds, bootstrap: int, seed: int
) -> Subgroup:
    ill = scored.labels != NORMAL
    sick = scored.labels == BACTERIAL, scored.labels == VIRAL
    positive, negative, bacterial, viral = (
        effective_patients(scored.patients[some]) for some in (ill, ~ill, *sick)
    )
    patients = {
        "sensitivity": positive,
        "specificity": negative,
        "auroc": effective_pairs(positive, negative),
        "bacterial_viral_auroc": effective_pairs(bacterial, viral),
    }
    sampled = _sampled(scored, thresholds, bootstrap, seed)

    def measure(name: str) -> Measure:
        return estimate(sampled[name], patients[name]).as_json()

    return {
        "factor": factor,
        "group": group,
        "images": len(ill),
        "patients": len(np.unique(scored.patients)),
        "normal": int((~ill).sum()),
        "pneumonia": int(ill.sum()),
        "auroc": measure("auroc"),
        "sensitivity": measure("sensitivity"),
        "specificity": measure("specificity"),
        "bacterial_viral_auroc": measure("bacterial_viral_auroc"),
    }


def _sampled(scored: ScoredSet, thresholds: Thresholds, bootstrap: int, seed: int) -> dict[str, Floats]:
    """Each measure on the group's images and on every resample of its patients."""
    blocks = [
        group_measures(scored.labels, scored.probabilities, thresholds, weights)
        for weights, _ in patient_resamples(scored.labels, scored.patient_index, bootstrap, seed)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def group_measures(
    truth: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], thresholds: Thresholds, weights: Floats
) -> dict[str, Floats]:
    """Each measure of the images of a group, [R] for weights [R, N]; NaN where a class is missing."""
    ill, sick = truth != NORMAL, of_known_kind(truth)
    total, share = p_pneumonia(scores), bacterial_share(scores)
    called = total >= np.float32(thresholds.pneumonia)
    return {
        "auroc": ranking_measures(total, ill, weights)["auroc"],
        "sensitivity": weighted_mean(called[ill], weights[:, ill]),
        "specificity": weighted_mean(~called[~ill], weights[:, ~ill]),
        "bacterial_viral_auroc": _auroc_or_nan(share[sick], truth[sick] == BACTERIAL, weights[:, sick]),
    }


def _auroc_or_nan(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], weights: Floats
) -> Floats:
    if not len(scores):
        return np.full(len(weights), np.nan)
    return ranking_measures(scores, positive, weights)["auroc"]
