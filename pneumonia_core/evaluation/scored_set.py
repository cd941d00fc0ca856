"""Labelled images with their scores: what every measure is computed from."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import CLASSES


@dataclass(frozen=True)
class ScoredSet:
    """`labels` int64 [N] index CLASSES, `patients` [N] are keys, `probabilities` are float32 [N, 3]."""

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
        if truth.min() < 0 or truth.max() >= len(CLASSES):
            raise InvalidInput(f"labels are 0 to {len(CLASSES) - 1}, not {truth.min()} to {truth.max()}.")
        sums = scores.sum(axis=1)
        if not (np.isfinite(scores).all() and np.abs(sums - 1).max() < 1e-2 and scores.min() >= 0):
            raise InvalidInput("the probabilities of an image are not three numbers with the sum 1.")
