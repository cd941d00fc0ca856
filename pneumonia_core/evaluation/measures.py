"""The measures of scores on labelled images, on the images themselves and on resamples of their patients.

A resample of the patients is a row of weights: the number of times that each image was drawn. Each measure is
computed on all rows at once. scikit-learn's functions take one set of weights at a time, and a thousand
resamples of twenty measures would take minutes. Row 0 weighs each image once and gives the values themselves;
the tests compare them with scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from pneumonia_core.evaluation.bootstrap import (
    Floats,
    effective_pairs,
    effective_patients,
    patient_resamples,
)
from pneumonia_core.evaluation.calibration import prior_corrected
from pneumonia_core.evaluation.calibration_measures import (
    brier,
    calibration_line,
    expected_calibration_error,
    reliability,
)
from pneumonia_core.evaluation.scored_set import of_known_kind, of_three_classes
from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, Thresholds, bacterial_share, p_pneumonia


@dataclass(frozen=True)
class Task:
    """A binary classification of the images `rows` (indices into the labelled set).

    `scores` rank the images, `called` are those called positive at the threshold, and calibration measures
    `probability`; each has the length of `rows`.
    """

    name: str
    positive_name: str
    negative_name: str
    threshold: float
    rows: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    called: npt.NDArray[np.bool_]
    probability: Floats


def tasks_of(
    truth: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    thresholds: Thresholds,
    prevalence: float | None,
    prior: float,
) -> list[Task]:
    """Pneumonia or normal, over all images; bacterial or viral, over those with pneumonia of known kind.

    `truth` is int [N], `scores` are probabilities float32 [N, 3]. With `prevalence`, the probability of
    pneumonia is corrected to it from `prior`.
    """
    ill = truth != NORMAL
    total, share = p_pneumonia(scores), bacterial_share(scores)
    probability = np.clip(total.astype(np.float64), 0, 1)
    if prevalence is not None:
        probability = prior_corrected(probability, prior, prevalence)
    t1, t2 = np.float32(thresholds.pneumonia), np.float32(thresholds.bacterial)
    sick = np.flatnonzero(of_known_kind(truth))
    return [
        Task(
            "pneumonia_vs_normal", "pneumonia", "normal", float(t1),
            np.arange(len(truth)), ill, total, total >= t1, probability,
        ),
        Task(
            "bacterial_vs_viral", "bacterial", "viral", float(t2),
            sick, truth[sick] == BACTERIAL, share[sick], share[sick] >= t2, share[sick].astype(np.float64),
        ),
    ]  # fmt: skip


def sampled_measures(
    truth: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    tasks: list[Task],
    prevalence: float | None,
    bootstrap: int,
    seed: int,
) -> tuple[dict[str, Floats], int]:
    """Each measure on the data (row 0) and on every resample, and the number of skipped resamples.

    The measures have dotted names, such as `three_class.accuracy` and `bacterial_vs_viral.auroc`. Each is [1
    + R]; those of the reliability bins are [1 + R, 10].
    """
    blocks, skipped = [], 0
    for weights, incomplete in patient_resamples(truth, patient_index, bootstrap, seed):
        blocks.append(_measures(truth, found, tasks, to_prevalence(weights, truth, prevalence)))
        skipped += incomplete
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}, skipped


def to_prevalence(weights: Floats, truth: npt.NDArray[np.int64], prevalence: float | None) -> Floats:
    """Weights with exactly the share `prevalence` of pneumonia in each row and the same sums.

    Images with and without pneumonia must both be present.
    """
    ill = truth != NORMAL
    if prevalence is None:
        return weights
    total, sick = weights.sum(axis=1), weights[:, ill].sum(axis=1)
    for_ill, for_well = total * prevalence / sick, total * (1 - prevalence) / (total - sick)
    return weights * np.where(ill, for_ill[:, None], for_well[:, None])


def _measures(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], tasks: list[Task], weights: Floats
) -> dict[str, Floats]:
    """All measures by dotted name, each [R] or, for the reliability bins, [R, 10]."""
    right, counted = found == truth, of_three_classes(truth)
    measures = {"three_class.accuracy": weighted_mean(right[counted], weights[:, counted])}
    for label, name in enumerate(CLASSES):
        measures[f"three_class.{name}"] = weighted_mean(right[truth == label], weights[:, truth == label])
    for task in tasks:
        for name, values in _task_measures(task, weights[:, task.rows]).items():
            measures[f"{task.name}.{name}"] = values
    return measures


def _task_measures(task: Task, weights: Floats) -> dict[str, Floats]:
    positive, called = task.positive, task.called
    measures = ranking_measures(task.scores, positive, weights)
    measures["accuracy"] = weighted_mean(called == positive, weights)
    measures["sensitivity"] = weighted_mean(called[positive], weights[:, positive])
    measures["specificity"] = weighted_mean(~called[~positive], weights[:, ~positive])
    curve = reliability(task.probability, positive, weights)
    both = positive.any() and not positive.all()
    undefined = np.full(len(weights), np.nan)
    measures["slope"], measures["intercept"] = (
        calibration_line(task.probability, positive, weights) if both else (undefined, undefined)
    )
    with np.errstate(invalid="ignore"):
        measures["ece"] = expected_calibration_error(curve)
        measures["brier"] = brier(task.probability, positive, weights)
    measures["bin_predicted"], measures["bin_observed"] = curve.predicted, curve.observed
    return measures


def ranking_measures(
    scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], weights: Floats
) -> dict[str, Floats]:
    """Area under the ROC curve, average precision, and sensitivity at a specificity of 90 and 95 % or more.

    Images of equal score are one step of the curves, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    ranked, hit = weights[:, order], positive[order]
    true_positives = np.cumsum(ranked * hit, axis=1)[:, ends]
    false_positives = np.cumsum(ranked * ~hit, axis=1)[:, ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = true_positives / true_positives[:, -1:]
        fall_out = false_positives / false_positives[:, -1:]
        precision = np.nan_to_num(true_positives / (true_positives + false_positives))
    steps = np.diff(sensitivity, axis=1, prepend=0)
    previous = sensitivity - steps
    measures = {
        "auroc": (np.diff(fall_out, axis=1, prepend=0) * (sensitivity + previous) / 2).sum(axis=1),
        "auprc": (steps * precision).sum(axis=1),
    }
    for percent in (90, 95):
        allowed = fall_out <= 1 - percent / 100 + 1e-9
        best = np.where(allowed, sensitivity, 0).max(axis=1, initial=0)
        measures[f"sensitivity_at_specificity_{percent}"] = best
    if positive.all() or not positive.any():
        return {name: np.full(len(weights), np.nan) for name in measures}
    return measures


def weighted_mean(values: npt.NDArray[np.generic], weights: Floats) -> Floats:
    """The mean of `values` [N] under each row of `weights` [R, N]; of bool, the share that is true."""
    with np.errstate(invalid="ignore"):
        means: Floats = (weights @ values.astype(np.float64)) / weights.sum(axis=1)
    return means


def effective_sizes(
    truth: npt.NDArray[np.int64],
    patient_index: npt.NDArray[np.int64],
    tasks: list[Task],
    prevalence: float | None,
) -> dict[str, float]:
    """The number of patients that each share and area is worth at 0 and 1, by its dotted name.

    Under prevalence weights those who weigh more count for more (exact intervals of weighted shares: Korn and
    Graubard, Survey Methodology 24, 1998).
    """
    weights = to_prevalence(np.ones((1, len(truth))), truth, prevalence)[0]

    def patients(rows: npt.NDArray[np.int64]) -> float:
        return effective_patients(patient_index[rows], weights[rows])

    sizes = {"three_class.accuracy": patients(np.flatnonzero(of_three_classes(truth)))}
    for label, name in enumerate(CLASSES):
        sizes[f"three_class.{name}"] = patients(np.flatnonzero(truth == label))
    for task in tasks:
        positive, negative = patients(task.rows[task.positive]), patients(task.rows[~task.positive])
        pairs = effective_pairs(positive, negative)
        of_task = {
            "accuracy": patients(task.rows),
            "sensitivity": positive,
            "specificity": negative,
            "sensitivity_at_specificity_90": positive,
            "sensitivity_at_specificity_95": positive,
            "auroc": pairs,
            # A mean over the positive images.
            "auprc": min(pairs, positive),
        }
        sizes.update({f"{task.name}.{name}": size for name, size in of_task.items()})
    return sizes


def auroc_standard_error(truth: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> float:
    """The standard error of the AUROC of scores [N] for truth bool [N], in closed form.

    (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; by ranks as in Sun and Xu, IEEE Signal Processing
    Letters 21, 2014.) It takes images for independent: with several images of a patient it is too small, and
    the patient bootstrap is right. NaN with fewer than two images of either outcome.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if min(positives, negatives) < 2:
        return float("nan")
    # The share of the other outcome that each image is ranked rightly against.
    right = right_pairs(np.asarray(scores, np.float64), truth)
    above, below = right[truth] / negatives, right[~truth] / positives
    return float(np.sqrt(above.var(ddof=1) / positives + below.var(ddof=1) / negatives))


def right_pairs(scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> Floats:
    """The pairs of a positive and a negative image that each image is in and that are ranked rightly, [N].

    Ties count by half. The AUROC is the share of all pairs that are ranked rightly (Mann and Whitney 1947).
    """
    ranks = rankdata(scores)
    right = np.empty(len(scores))
    right[positive] = ranks[positive] - rankdata(scores[positive])
    right[~positive] = positive.sum() - (ranks[~positive] - rankdata(scores[~positive]))
    return right
