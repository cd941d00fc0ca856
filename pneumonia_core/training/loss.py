"""The loss of a training: whether there is pneumonia and, given pneumonia, of which kind."""

from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
from keras import ops

from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL
from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class ClassWeights:
    """The weight of a training image in each term of the loss.

    `normal` and `pneumonia` are for the first term, `bacterial` and `viral` for the second.
    """

    normal: float
    pneumonia: float
    bacterial: float
    viral: float

    @classmethod
    def balanced(cls, labels: np.ndarray) -> Self:
        """Weights for labels int [N] under which both answers to a question count the same.

        Over the images that a question is put to, the mean weight is 1. Both weights of the kind are 0 where
        it is known of no image.
        """
        normal, bacterial, viral, unknown = np.bincount(labels, minlength=len(CLASSES) + 1).tolist()
        return cls(*_balanced(normal, bacterial + viral + unknown), *_balanced(bacterial, viral))


def _balanced(first: int, second: int) -> tuple[float, float]:
    both = first + second
    return both / (2 * max(first, 1)), both / (2 * max(second, 1))


@dataclass(frozen=True)
class LossTerms:
    """Targets and weights of the two terms, each float32 [N]."""

    pneumonia_target: np.ndarray
    pneumonia_weight: np.ndarray
    kind_target: np.ndarray
    kind_weight: np.ndarray


@dataclass(frozen=True)
class HierarchicalLoss:
    """The loss of three logits [normal, bacterial, viral], in two terms.

    With m = logsumexp(bacterial, viral) - normal, the first term is the cross-entropy of sigmoid(m) and
    pneumonia. With d = bacterial - viral, the second term is that of sigmoid(d) and the bacterial kind. Only
    images with pneumonia of a known kind add to it. Without smoothing and wrong labels, and with weights of
    1, the sum of both is the cross-entropy of the three classes.

    Labels of the kind are not all true. `false_bacterial` is the share of viral pneumonias that are labelled
    bacterial, `false_viral` the reverse. The second term compares labels with the probability that such an
    image bears them, not with that of the kind itself (forward correction; Patrini et al., CVPR 2017, theorem
    2). An image that looks viral may then be labelled bacterial, and the network needs no excuse for it.
    """

    weights: ClassWeights
    smoothing: float
    kind_weight: float
    false_bacterial: float
    false_viral: float

    @classmethod
    def of(cls, recipe: Recipe, weights: ClassWeights) -> Self:
        return cls(
            weights, recipe.label_smoothing, recipe.kind_weight, recipe.false_bacterial, recipe.false_viral
        )

    def terms(self) -> LossTerms:
        """Targets and weights by label: of CLASSES, then PNEUMONIA_UNKNOWN_KIND."""
        labels = np.arange(len(CLASSES) + 1)
        ill = labels != NORMAL
        kinds = np.zeros(len(labels))
        kinds[[BACTERIAL, VIRAL]] = self.weights.bacterial, self.weights.viral
        assert kinds[PNEUMONIA_UNKNOWN_KIND] == 0
        return LossTerms(
            pneumonia_target=_smoothed(ill, self.smoothing),
            pneumonia_weight=np.where(ill, self.weights.pneumonia, self.weights.normal).astype(np.float32),
            kind_target=(labels == BACTERIAL).astype(np.float32),
            kind_weight=(self.kind_weight * kinds).astype(np.float32),
        )

    def total(self, labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
        """The sum over images, a scalar, for labels int [B] and logits float32 [B, 3]."""
        terms = self.terms()

        def of_labels(values: np.ndarray) -> keras.KerasTensor:
            return ops.take(ops.convert_to_tensor(values), labels, axis=0)

        pneumonia = ops.logsumexp(logits[:, BACTERIAL:], axis=1) - logits[:, NORMAL]
        kind = logits[:, BACTERIAL] - logits[:, VIRAL]
        first = ops.softplus(pneumonia) - of_labels(terms.pneumonia_target) * pneumonia
        second = self._of_kind(kind, of_labels(terms.kind_target))
        return ops.sum(of_labels(terms.pneumonia_weight) * first + of_labels(terms.kind_weight) * second)

    def _of_kind(self, logit: keras.KerasTensor, bacterial: keras.KerasTensor) -> keras.KerasTensor:
        as_bacterial = self._log_labelled(ops.log_sigmoid(logit), self.false_bacterial)
        as_viral = self._log_labelled(ops.log_sigmoid(-logit), self.false_viral)
        return -(bacterial * as_bacterial + (1 - bacterial) * as_viral)

    def _log_labelled(self, log_p: keras.KerasTensor, wrongly: float) -> keras.KerasTensor:
        """The logarithm of the probability of a label whose kind has `log_p`."""
        rightly = 1 - self.false_bacterial - self.false_viral
        if wrongly == 0:
            # The sum below would lose a small probability to rounding.
            return log_p + np.log(rightly)
        return ops.log(wrongly + rightly * ops.exp(log_p))


def _smoothed(positive: np.ndarray, smoothing: float) -> np.ndarray:
    return (positive * (1 - smoothing) + smoothing / 2).astype(np.float32)
