"""Robustness: how far scores move when a picture is changed in ways that leave the lungs as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import Estimate, Floats, estimate, patient_resamples
from pneumonia_core.evaluation.document import PerturbationEffect, Robustness
from pneumonia_core.evaluation.measures import ranking_measures
from pneumonia_core.evaluation.perturbations import Perturbation
from pneumonia_core.evaluation.scored_set import images_by_label
from pneumonia_core.findings import (
    BACTERIAL,
    CLASSES,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    VIRAL,
    Thresholds,
    finding_labels,
    p_pneumonia,
)

RESAMPLES: Final = 1000


@dataclass(frozen=True)
class PerturbedScores:
    """Labelled images scored as they are and after each of `perturbations`.

    `labels` int64 [N] index LABELS, `patients` [N] are keys, `probabilities` are float32 [N, 1 + P, 3].
    `aspects` are the aspects that perturbations aim at, by whether an image shows pneumonia; None where there
    is none to aim at.
    """

    labels: npt.NDArray[np.int64]
    patients: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    perturbations: Sequence[Perturbation]
    aspects: Mapping[bool, float] | None = None


def balanced_sample(labels: npt.ArrayLike, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Indices, sorted, of up to `count` images: half of them normal, and as many bacterial as viral, where
    there are enough of each. Pneumonia of unknown kind, where there is some, is a third kind.
    """
    truth = np.asarray(labels)
    rng = np.random.default_rng(seed)
    kinds = [BACTERIAL, VIRAL]
    if (truth == PNEUMONIA_UNKNOWN_KIND).any():
        kinds = [kind for kind in (*kinds, PNEUMONIA_UNKNOWN_KIND) if (truth == kind).any()]
    wanted = {NORMAL: count // 2, **dict.fromkeys(kinds, count // 2 // len(kinds))}
    chosen = [rng.permutation(np.flatnonzero(truth == label))[:number] for label, number in wanted.items()]
    return np.sort(np.concatenate(chosen))


def robustness(
    scores: PerturbedScores, thresholds: Thresholds, bootstrap: int = RESAMPLES, seed: int = 0
) -> Robustness:
    """The effect of each perturbation on p_pneumonia, the findings and the AUROC.

    `mean_change` and `p99_change` are the mean and the 99th percentile of |change|, `shift_difference` is the
    mean change of pneumonia less that of normal, `findings_changed` a share of the images. Intervals are over
    resamples of the patients.
    """
    truth, aspects = scores.labels, scores.aspects
    columns = range(1 + len(scores.perturbations))
    totals = [p_pneumonia(scores.probabilities[:, column]) for column in columns]
    found = [finding_labels(scores.probabilities[:, column], thresholds) for column in columns]
    aurocs = _resampled_aurocs(totals, scores, bootstrap, seed)
    return {
        "images": len(truth),
        "images_by_class": images_by_label(truth),
        "auroc": estimate(aurocs[0]).as_json(),
        "median_aspect": None if aspects is None else {"normal": aspects[True], "pneumonia": aspects[False]},
        "rows": [
            _effect(
                perturbation,
                estimate(aurocs[column] - aurocs[0]),
                _changes(totals[column].astype(np.float64) - totals[0], truth),
                float((found[column] != found[0]).mean()),
            )
            for column, perturbation in enumerate(scores.perturbations, 1)
        ],
    }


def _resampled_aurocs(
    totals: Sequence[npt.NDArray[np.float32]], scores: PerturbedScores, bootstrap: int, seed: int
) -> list[Floats]:
    """The AUROC of each column on the data and on every resample, the same resamples for all columns."""
    patient_index = np.unique(scores.patients, return_inverse=True)[1].reshape(-1)
    blocks = [
        [ranking_measures(total, scores.labels != NORMAL, weights)["auroc"] for total in totals]
        for weights, _ in patient_resamples(scores.labels, patient_index, bootstrap, seed)
    ]
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


class _Changes(TypedDict):
    mean_change: float
    p99_change: float
    shift: dict[str, float | None]
    shift_difference: float | None


def _changes(change: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> _Changes:
    ill, well = _mean(change[truth != NORMAL]), _mean(change[truth == NORMAL])
    by_class = {name: _mean(change[truth == label]) for label, name in enumerate(CLASSES)}
    return {
        "mean_change": float(np.abs(change).mean()),
        "p99_change": float(np.quantile(np.abs(change), 0.99)),
        "shift": {**by_class, "pneumonia": ill},
        "shift_difference": None if ill is None or well is None else ill - well,
    }


def _effect(
    perturbation: Perturbation, auroc_change: Estimate, changes: _Changes, findings_changed: float
) -> PerturbationEffect:
    return {
        "name": perturbation.name,
        "label": perturbation.label,
        "auroc_change": auroc_change.as_json(),
        **changes,
        "findings_changed": findings_changed,
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
