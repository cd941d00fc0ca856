"""The same measures within parts of the images: where a model is worse than its mean says."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import Floats, estimate, patient_resamples
from pneumonia_core.evaluation.measures import ranking_measures, weighted_share
from pneumonia_core.findings import BACTERIAL, NORMAL, Thresholds, bacterial_share, p_pneumonia

MAX_SIZES: Final = 3


def subgroups(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    thresholds: Thresholds,
    factors: Mapping[str, Sequence[str]],
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The measures of each group of each factor, ready for json.dump.

    `labels` int [N] index CLASSES, `probabilities` are float32 [N, 3], `factors` give a group [N] to each image.
    Rows are {factor, group, images, normal, pneumonia, auroc, sensitivity, specificity, bacterial_viral_auroc}, the
    last four being measures (value and 95 % interval over resamples of the group's patients, see bootstrap.measure),
    null where the group lacks a class.
    """
    truth = np.asarray(labels, np.int64)
    scores = np.asarray(probabilities, np.float32)
    keys = np.asarray(patients)
    rows = []
    for factor, groups in factors.items():
        names = np.array(groups, dtype=str)
        for group in sorted(set(groups)):
            mine = names == group
            counts = {
                "sensitivity": _patients(keys[mine & (truth != NORMAL)]),
                "specificity": _patients(keys[mine & (truth == NORMAL)]),
            }
            sampled = _sampled(truth[mine], scores[mine], keys[mine], thresholds, bootstrap, seed)
            rows.append(
                {
                    "factor": factor,
                    "group": group,
                    "images": int(mine.sum()),
                    "normal": int((truth[mine] == NORMAL).sum()),
                    "pneumonia": int((truth[mine] != NORMAL).sum()),
                    **{name: estimate(values, counts.get(name)) for name, values in sampled.items()},
                }
            )
    return rows


def _patients(keys: npt.NDArray) -> int:
    return len(np.unique(keys))


def _sampled(
    truth: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    patients: npt.NDArray,
    thresholds: Thresholds,
    bootstrap: int,
    seed: int,
) -> dict[str, Floats]:
    """Each measure on the group's images and on every resample of its patients."""
    index = np.unique(patients, return_inverse=True)[1].reshape(-1)
    blocks = [
        _measures(truth, scores, thresholds, weights)
        for weights, _ in patient_resamples(truth, index, bootstrap, seed)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _measures(
    truth: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], thresholds: Thresholds, weights: Floats
) -> dict[str, Floats]:
    ill = truth != NORMAL
    total, share = p_pneumonia(scores), bacterial_share(scores)
    called = total >= np.float32(thresholds.pneumonia)
    return {
        "auroc": ranking_measures(total, ill, weights)["auroc"],
        "sensitivity": weighted_share(called[ill], weights[:, ill]),
        "specificity": weighted_share(~called[~ill], weights[:, ~ill]),
        "bacterial_viral_auroc": _auroc_or_nan(share[ill], truth[ill] == BACTERIAL, weights[:, ill]),
    }


def _auroc_or_nan(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], weights: Floats
) -> Floats:
    if not len(scores):
        return np.full(len(weights), np.nan)
    return ranking_measures(scores, positive, weights)["auroc"]


def size_groups(widths: Sequence[int | None], heights: Sequence[int | None]) -> list[str]:
    """For each image the group of its source's size: the size itself where there are few, else one of three by number
    of pixels, cut at the thirds of the images; of fewer where equal sizes fill more than a third."""
    sizes = list(zip(widths, heights, strict=True))
    distinct = {size for size in sizes if None not in size}
    if len(distinct) <= MAX_SIZES:
        return [f"{width} × {height}" if width and height else "unknown" for width, height in sizes]
    pixels = np.array([width * height if width and height else np.nan for width, height in sizes])
    limits = np.unique(np.nanquantile(pixels, [1 / 3, 2 / 3, 1], method="inverted_cdf"))
    names = [
        f"{number} of {len(limits)}, up to {limit / 1e6:.3g} megapixels"
        for number, limit in enumerate(limits, start=1)
    ]
    return ["unknown" if np.isnan(count) else names[int(np.searchsorted(limits, count))] for count in pixels]
