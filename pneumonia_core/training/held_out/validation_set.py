"""The validation images of a release, with their labels and patients."""

from dataclasses import dataclass

import numpy as np

from pneumonia_core.bundles.parity import PARITY_IMAGES, ParityImages
from pneumonia_core.training.held_out.images import ImageParts


@dataclass(frozen=True)
class ValidationSet:
    """N labelled images outside the training set, their labels int64 [N] and patient keys [N].

    Labels are indices into findings.LABELS.

    `folds` int [N] is for members that were trained on folds: each image was held out of the training of the
    one member with this number. Without it no member was trained on any of the images.
    """

    images: ImageParts
    labels: np.ndarray
    patients: np.ndarray
    folds: np.ndarray | None = None

    @property
    def description(self) -> str:
        """What an evaluation on these images says of them."""
        if self.folds is None:
            return "validation patients, cut from the training data"
        return "validation by folds: each patient by the one network that was not trained on it"

    def unseen_by(self, member: int) -> np.ndarray:
        """The images that this member was not trained on, bool [N]."""
        return np.ones(len(self.labels), bool) if self.folds is None else self.folds == member

    def parity_images(self) -> ParityImages:
        """Up to PARITY_IMAGES of them, evenly spread, because they are sorted by class."""
        count = len(self.labels)
        spread = np.linspace(0, count - 1, min(count, PARITY_IMAGES)).round().astype(int)
        chosen = np.zeros(count, bool)
        chosen[spread] = True
        return ParityImages(self.images.select(chosen), self.labels[chosen])
