"""How far scores move when a picture is changed in ways that change no lung."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import estimate, patient_resamples
from pneumonia_core.evaluation.measures import ranking_measures
from pneumonia_core.evaluation.perturbations import Perturbation
from pneumonia_core.findings import CLASSES, NORMAL, Thresholds, finding_labels, p_pneumonia

RESAMPLES: Final = 1000


def balanced_sample(labels: npt.ArrayLike, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Indices, sorted, of up to `count` images: half of them normal, of the others as many bacterial as viral,
    where there are enough of each."""
    truth = np.asarray(labels)
    rng = np.random.default_rng(seed)
    wanted = dict(zip(range(len(CLASSES)), (count // 2, count // 4, count // 4), strict=True))
    chosen = [rng.permutation(np.flatnonzero(truth == label))[:number] for label, number in wanted.items()]
    return np.sort(np.concatenate(chosen))


def robustness(
    labels: npt.ArrayLike,
    patients: npt.ArrayLike,
    probabilities: npt.NDArray[np.float32],
    done: Sequence[Perturbation],
    thresholds: Thresholds,
    aspects: Mapping[bool, float] | None = None,
    bootstrap: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """What each perturbation did, ready for json.dump.

    `probabilities` float32 [N, 1 + P, 3] are of the images as they are and after each perturbation in `done`;
    `labels` int [N] index CLASSES. Of p_pneumonia, each of `rows` has `auroc_change` (a measure: value and
    95 % interval over resamples of the patients), `mean_change` and `p99_change` (mean and 99th percentile of
    |change|), `shift` (the mean change by class, null without images, and of all `pneumonia`),
    `shift_difference` (pneumonia's less normal's), and `findings_changed`, a share of the images.
    """
    truth = np.asarray(labels, np.int64)
    patient_index = np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1)
    totals = [p_pneumonia(probabilities[:, column]) for column in range(1 + len(done))]
    found = [finding_labels(probabilities[:, column], thresholds) for column in range(1 + len(done))]
    aurocs = _resampled_aurocs(totals, truth, patient_index, bootstrap, seed)
    return {
        "images": len(truth),
        "images_by_class": {name: int((truth == label).sum()) for label, name in enumerate(CLASSES)},
        "auroc": estimate(aurocs[0]),
        "median_aspect": None if aspects is None else {"normal": aspects[True], "pneumonia": aspects[False]},
        "rows": [
            {
                "name": perturbation.name,
                "label": perturbation.label,
                "auroc_change": estimate(aurocs[column] - aurocs[0]),
                **_changes(totals[column].astype(np.float64) - totals[0], truth),
                "findings_changed": float((found[column] != found[0]).mean()),
            }
            for column, perturbation in enumerate(done, 1)
        ],
    }


def _resampled_aurocs(
    totals: Sequence[npt.NDArray[np.float32]],
    truth: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    bootstrap: int,
    seed: int,
) -> list[npt.NDArray[np.float64]]:
    """Of each column the AUROC of the data and of every resample, the same resamples for all."""
    blocks = [
        [ranking_measures(total, truth != NORMAL, weights)["auroc"] for total in totals]
        for weights, _ in patient_resamples(truth, patient_index, bootstrap, seed)
    ]
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _changes(change: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> dict[str, Any]:
    shift = {name: _mean(change[truth == label]) for label, name in enumerate(CLASSES)}
    shift["pneumonia"] = _mean(change[truth != NORMAL])
    both = shift["pneumonia"] is not None and shift["normal"] is not None
    return {
        "mean_change": float(np.abs(change).mean()),
        "p99_change": float(np.quantile(np.abs(change), 0.99)),
        "shift": shift,
        "shift_difference": shift["pneumonia"] - shift["normal"] if both else None,  # type: ignore[operator]
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
