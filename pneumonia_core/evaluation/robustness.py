"""Robustness: how far scores move when a picture is changed in ways that leave the lungs as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import (
    Floats,
    effective_pairs,
    effective_patients,
    estimate,
    patient_resamples,
)
from pneumonia_core.evaluation.document import Robustness
from pneumonia_core.evaluation.measures import ranking_measures, weighted_mean
from pneumonia_core.evaluation.perturbations import Perturbation
from pneumonia_core.evaluation.scored_set import images_by_label, of_known_kind, of_three_classes
from pneumonia_core.findings import (
    BACTERIAL,
    CLASSES,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    VIRAL,
    Thresholds,
    bacterial_share,
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
    """The effect of each perturbation on the scores, the findings and their measures.

    `mean_change` and `p99_change` are the mean and the 99th percentile of |change| of p_pneumonia,
    `shift_difference` is its mean change in pneumonia less that in normal, `findings_changed` a share of the
    images. `bacterial_viral` says the same of the bacterial share in images of known kind. Intervals are over
    resamples of the patients, the same for all perturbations.
    """
    truth, aspects = scores.labels, scores.aspects
    columns = [scores.probabilities[:, column] for column in range(1 + len(scores.perturbations))]
    found = [finding_labels(column, thresholds) for column in columns]
    sampled = [
        _resampled(truth, scores.patients, column, labels, bootstrap, seed)
        for column, labels in zip(columns, found, strict=True)
    ]
    before, sizes = sampled[0], _effective_sizes(truth, scores.patients)
    return {
        "images": len(truth),
        "images_by_class": images_by_label(truth),
        "auroc": estimate(before["auroc"], sizes["auroc"]).as_json(),
        "bacterial_viral_auroc": estimate(before["kind_auroc"], sizes["kind_auroc"]).as_json(),
        "three_class_accuracy": estimate(before["accuracy"], sizes["accuracy"]).as_json(),
        "median_aspect": None if aspects is None else {"normal": aspects[True], "pneumonia": aspects[False]},
        "rows": [
            {
                "name": perturbation.name,
                "label": perturbation.label,
                "auroc_change": estimate(after["auroc"] - before["auroc"]).as_json(),
                **_changes(columns[0], column, truth),
                "findings_changed": float((labels != found[0]).mean()),
                "bacterial_viral": {
                    "auroc_change": estimate(after["kind_auroc"] - before["kind_auroc"]).as_json(),
                    **_kind_changes(columns[0], column, truth),
                },
                "three_class_accuracy_change": estimate(after["accuracy"] - before["accuracy"]).as_json(),
            }
            for perturbation, column, labels, after in zip(
                scores.perturbations, columns[1:], found[1:], sampled[1:], strict=True
            )
        ],
    }


def _resampled(
    truth: npt.NDArray[np.int64],
    patients: npt.NDArray[Any],
    probabilities: npt.NDArray[np.float32],
    found: npt.NDArray[np.int64],
    bootstrap: int,
    seed: int,
) -> dict[str, Floats]:
    """Both AUROCs and the three-class accuracy on the data and on every resample, each [1 + R]."""
    patient_index = np.unique(patients, return_inverse=True)[1].reshape(-1)
    kind, counted = of_known_kind(truth), of_three_classes(truth)
    total, share = p_pneumonia(probabilities), bacterial_share(probabilities)
    right = (found == truth)[counted]
    blocks = [
        {
            "auroc": _auroc(total, truth != NORMAL, weights),
            "kind_auroc": _auroc(share[kind], truth[kind] == BACTERIAL, weights[:, kind]),
            "accuracy": weighted_mean(right, weights[:, counted]),
        }
        for weights, _ in patient_resamples(truth, patient_index, bootstrap, seed)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _auroc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    if not len(scores):
        return np.full(len(weights), np.nan)
    return ranking_measures(scores, positive, weights)["auroc"]


def _effective_sizes(truth: npt.NDArray[np.int64], patients: npt.NDArray[Any]) -> dict[str, float]:
    well, ill, bacterial, viral, counted = (
        effective_patients(patients[some])
        for some in (truth == NORMAL, truth != NORMAL, truth == BACTERIAL, truth == VIRAL,
                     of_three_classes(truth))
    )  # fmt: skip
    return {
        "auroc": effective_pairs(ill, well),
        "kind_auroc": effective_pairs(bacterial, viral),
        "accuracy": counted,
    }


class _Changes(TypedDict):
    mean_change: float
    p99_change: float
    shift: dict[str, float | None]
    shift_difference: float | None


class _KindChanges(TypedDict):
    mean_change: float | None
    p99_change: float | None


def _changes(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
) -> _Changes:
    change = p_pneumonia(after).astype(np.float64) - p_pneumonia(before)
    ill, well = _mean(change[truth != NORMAL]), _mean(change[truth == NORMAL])
    by_class = {name: _mean(change[truth == label]) for label, name in enumerate(CLASSES)}
    return {
        "mean_change": float(np.abs(change).mean()),
        "p99_change": float(np.quantile(np.abs(change), 0.99)),
        "shift": {**by_class, "pneumonia": ill},
        "shift_difference": None if ill is None or well is None else ill - well,
    }


def _kind_changes(
    before: npt.NDArray[np.float32], after: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
) -> _KindChanges:
    kind = of_known_kind(truth)
    change = np.abs(bacterial_share(after)[kind].astype(np.float64) - bacterial_share(before)[kind])
    if not len(change):
        return {"mean_change": None, "p99_change": None}
    return {"mean_change": float(change.mean()), "p99_change": float(np.quantile(change, 0.99))}


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
