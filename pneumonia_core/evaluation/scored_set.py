"""Labelled images with their scores: what every measure is computed from."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import BACTERIAL, CLASSES, LABELS, PNEUMONIA_UNKNOWN_KIND, VIRAL


@dataclass(frozen=True)
class ScoredSet:
    """`labels` int64 [N] index LABELS, `patients` [N] are keys, `probabilities` are float32 [N, 3]."""

    labels: npt.NDArray[np.int64]
    patients: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]

    @classmethod
    def of(cls, labels: npt.ArrayLike, patients: npt.ArrayLike, probabilities: npt.ArrayLike) -> Self:
        """The set of these values. Raises InvalidInput where they do not fit or are not probabilities."""
        scored = cls(
            np.asarray(labels, dtype=np.int64),
            np.asarray(patients),
            np.asarray(probabilities, dtype=np.float32),
        )
        scored._check()
        return scored

    @property
    def patient_index(self) -> npt.NDArray[np.int64]:
        """The number of each image's patient, int64 [N], from 0 on without gaps."""
        return np.unique(self.patients, return_inverse=True)[1].reshape(-1)

    def subset(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Self:
        """The images of a mask bool [N], or of indices."""
        return type(self)(self.labels[chosen], self.patients[chosen], self.probabilities[chosen])

    def _check(self) -> None:
        truth, scores = self.labels, self.probabilities
        if len(truth) == 0:
            raise InvalidInput("there are no scored images to evaluate.")
        if scores.shape != (len(truth), len(CLASSES)) or len(self.patients) != len(truth):
            raise InvalidInput(
                f"{len(truth)} labels do not fit probabilities of shape {scores.shape} and "
                f"{len(self.patients)} patients."
            )
        if truth.min() < 0 or truth.max() >= len(LABELS):
            raise InvalidInput(f"labels are 0 to {len(LABELS) - 1}, not {truth.min()} to {truth.max()}.")
        sums = scores.sum(axis=1)
        if not (np.isfinite(scores).all() and np.abs(sums - 1).max() < 1e-2 and scores.min() >= 0):
            raise InvalidInput("the probabilities of an image are not three numbers with the sum 1.")


def of_known_kind(truth: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which images show pneumonia that is labelled bacterial or viral, bool [N]."""
    return np.isin(truth, (BACTERIAL, VIRAL))


def of_three_classes(truth: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which images three-class measures are computed from, bool [N]: all but those of unknown kind.

    None where pneumonia is only of unknown kind: the normal images alone are one class.
    """
    unknown = truth == PNEUMONIA_UNKNOWN_KIND
    return ~unknown & (of_known_kind(truth).any() | ~unknown.any())


def images_by_label(truth: npt.NDArray[np.int64]) -> dict[str, int]:
    """The number of images of each class and, where there are any, with pneumonia of unknown kind."""
    counts = {name: int((truth == label).sum()) for label, name in enumerate(CLASSES)}
    unknown = int((truth == PNEUMONIA_UNKNOWN_KIND).sum())
    return {**counts, "pneumonia_unknown_kind": unknown} if unknown else counts
