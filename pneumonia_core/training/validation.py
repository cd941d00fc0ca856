"""Validation during training: figures, curves and confusion on the validation images."""

import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, roc_auc_score

from pneumonia_core.calibration import log_odds
from pneumonia_core.evaluation.bootstrap import number
from pneumonia_core.evaluation.measures import auroc_standard_error
from pneumonia_core.findings import (
    BACTERIAL,
    CLASSES,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    VIRAL,
    bacterial_share,
    p_pneumonia,
)
from pneumonia_core.training.averaged import AveragedNetwork
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.history import ValidationFigures
from pneumonia_core.training.learner import Learner

_UNKNOWN: Final = (None, None, None)
_SMALLEST: Final = 1e-15


@dataclass(frozen=True)
class Validated:
    """The figures of the averaged network, and its probabilities float32 [N, 3] for all validation images."""

    figures: ValidationFigures
    probabilities: np.ndarray


@dataclass(frozen=True)
class ValidationShard:
    """What one of `world` workers scores of the validation images: every `world`-th, batch by batch.

    `labels` int [N] are those of all `images`.
    """

    images: ImageParts
    labels: np.ndarray
    rank: int
    world: int

    def measure(self, learner: Learner) -> Validated:
        """Score all validation images, each on one worker; a collective operation with one result for all."""
        started = time.perf_counter()
        total = learner.total(self._logits(learner.averaged)).astype(np.float64)
        figures = validation_figures(self.labels, total, started)
        return Validated(figures, softmax(total, axis=1).astype(np.float32))

    def _logits(self, network: AveragedNetwork) -> np.ndarray:
        """Logits float32 [N, 3]; 0 for images that another worker scores."""
        count = len(self.labels)
        logits, mine = np.zeros((count, len(CLASSES)), np.float32), np.zeros(count, bool)
        mine[self.rank :: self.world] = True
        scored = np.flatnonzero(mine)
        for images in self.images.batches(network.batch_size, mine):
            logits[scored[: len(images)]] = network.logits(images)
            scored = scored[len(images) :]
        return logits


def validation_figures(labels: np.ndarray, logits: np.ndarray, started: float) -> ValidationFigures:
    """Figures for labels int [N] and logits float64 [N, 3]; `started` is by time.perf_counter.

    Labels are indices into CLASSES, or PNEUMONIA_UNKNOWN_KIND.
    """
    probabilities = softmax(logits, axis=1)
    ill, known = labels != NORMAL, labels != PNEUMONIA_UNKNOWN_KIND
    of_truth = np.where(
        known, probabilities[np.arange(len(labels)), labels * known], 1 - probabilities[:, NORMAL]
    )
    odds_of_pneumonia, odds = log_odds(logits).T
    pneumonia = _binary_figures(ill, odds_of_pneumonia)
    has_kinds = {BACTERIAL, VIRAL} <= set(labels.tolist())
    kind = _binary_figures(labels[ill & known] == BACTERIAL, odds[ill & known]) if has_kinds else _UNKNOWN
    correct = probabilities.argmax(axis=1) == labels
    return ValidationFigures(
        validation_loss=float(-np.log(np.maximum(of_truth, _SMALLEST)).mean()),
        auroc_pneumonia=pneumonia[0],
        auroc_bacterial=kind[0],
        accuracy_three_class=float(correct[known].mean()) if has_kinds else None,
        validation_s=time.perf_counter() - started,
        auroc_pneumonia_se=pneumonia[1],
        auroc_bacterial_se=kind[1],
        log_loss_pneumonia=pneumonia[2],
        log_loss_bacterial=kind[2],
    )


def tempered_log_loss(truth: np.ndarray, odds: np.ndarray) -> float:
    """The mean log-loss of sigmoid(odds / T) for truth bool [N] and log-odds [N], at the best T.

    Calibration corrects a network that is only too sure; the order of its scores is as good. A weak prior, a
    standard normal on log T, keeps perfectly separated images from a loss of 0.
    """
    signed = np.where(truth, odds, -odds)

    def objective(log_t: float) -> float:
        return float(np.logaddexp(0, -signed * math.exp(-log_t)).sum() + log_t**2 / 2)

    best = minimize_scalar(objective, bounds=(-5, 5), method="bounded").x
    return float(np.logaddexp(0, -signed * math.exp(-best)).mean())


def _binary_figures(truth: np.ndarray, odds: np.ndarray) -> tuple[float, float | None, float]:
    """AUROC, its standard error and the log-loss."""
    error = number(auroc_standard_error(truth, odds))
    return float(roc_auc_score(truth, odds)), error, tempered_log_loss(truth, odds)


@dataclass(frozen=True)
class BinaryScores:
    """A task with two outcomes: truth bool [N], and scores [N] from 0 to 1."""

    truth: np.ndarray
    scores: np.ndarray


def binary_tasks(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, BinaryScores]:
    """The two tasks that probabilities [N, 3] of images with labels int [N] answer, by name.

    Without images of both kinds there is only the first.
    """
    tasks = {"pneumonia vs normal": BinaryScores(labels != NORMAL, p_pneumonia(probabilities))}
    if {BACTERIAL, VIRAL} <= set(labels.tolist()):
        of_kind = np.isin(labels, (BACTERIAL, VIRAL))
        tasks["bacterial vs viral"] = BinaryScores(
            labels[of_kind] == BACTERIAL, bacterial_share(probabilities[of_kind])
        )
    return tasks


def confusion_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Numbers of images int [truth, most probable class], in the order of CLASSES.

    Images with pneumonia of unknown kind are left out.
    """
    known = labels != PNEUMONIA_UNKNOWN_KIND
    found = probabilities[known].argmax(axis=1)
    return np.asarray(confusion_matrix(labels[known], found, labels=range(len(CLASSES))))
