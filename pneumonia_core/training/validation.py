"""Validation during training: figures, curves and confusion on the validation images."""

import time
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score

from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, bacterial_share, p_pneumonia
from pneumonia_core.training.history import ValidationFigures
from pneumonia_core.training.learner import Learner


@dataclass(frozen=True)
class Validated:
    """The figures of the averaged network, and its probabilities float32 [N, 3] for all validation images."""

    figures: ValidationFigures
    probabilities: np.ndarray


@dataclass(frozen=True)
class ValidationShard:
    """The validation images uint8 [M, H, W] that one of `world` workers scores: every `world`-th.

    `labels` int [N] are those of all validation images.
    """

    images: np.ndarray
    labels: np.ndarray
    rank: int
    world: int

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray, rank: int, world: int) -> Self:
        return cls(images[rank::world], labels, rank, world)

    def measure(self, learner: Learner) -> Validated:
        """Score all validation images, each on one worker; a collective operation with one result for all."""
        started = time.perf_counter()
        logits = np.zeros((len(self.labels), len(CLASSES)), np.float32)
        logits[self.rank :: self.world] = learner.averaged.logits(self.images)
        probabilities = softmax(learner.total(logits).astype(np.float64), axis=1)
        figures = validation_figures(self.labels, probabilities, started)
        return Validated(figures, probabilities.astype(np.float32))


def validation_figures(labels: np.ndarray, probabilities: np.ndarray, started: float) -> ValidationFigures:
    """Figures for labels int [N] and probabilities [N, 3]; `started` is by time.perf_counter."""
    diseased = labels != NORMAL
    return ValidationFigures(
        validation_loss=float(log_loss(labels, probabilities, labels=range(len(CLASSES)))),
        auroc_pneumonia=float(roc_auc_score(diseased, p_pneumonia(probabilities))),
        auroc_bacterial=float(
            roc_auc_score(labels[diseased] == BACTERIAL, bacterial_share(probabilities[diseased]))
        ),
        accuracy_three_class=float(np.mean(probabilities.argmax(axis=1) == labels)),
        validation_s=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class BinaryScores:
    """A task with two outcomes: truth bool [N], and scores [N] from 0 to 1."""

    truth: np.ndarray
    scores: np.ndarray


def binary_tasks(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, BinaryScores]:
    """The two tasks that probabilities [N, 3] of images with labels int [N] answer, by name."""
    diseased = labels != NORMAL
    return {
        "pneumonia vs normal": BinaryScores(diseased, p_pneumonia(probabilities)),
        "bacterial vs viral": BinaryScores(
            labels[diseased] == BACTERIAL, bacterial_share(probabilities[diseased])
        ),
    }


def confusion_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Numbers of images int [truth, most probable class], in the order of CLASSES."""
    return np.asarray(confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(len(CLASSES))))
