"""Measures of arrays of labels, probabilities and patients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation import evaluate as evaluation
from pneumonia_core.evaluation.document import Evaluation, Subgroup
from pneumonia_core.evaluation.groups import subgroups as groups
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import Thresholds


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    thresholds: Thresholds,
    **options: Any,
) -> Evaluation:
    return evaluation.evaluate(ScoredSet.of(labels, patients, probabilities), thresholds, **options)


def subgroups(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    patients: npt.ArrayLike,
    thresholds: Thresholds,
    factors: Mapping[str, Sequence[str]],
    bootstrap: int = 1000,
) -> list[Subgroup]:
    return groups.subgroups(ScoredSet.of(labels, patients, probabilities), thresholds, factors, bootstrap)


def scored(images: int, seed: int = 0, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, calibrated probabilities and patients of a classifier that knows `skill` much.

    Gaussian logits with a shift of `skill` at the true class are calibrated after a scale of `skill`.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, images)
    logits = rng.normal(0, 1, (images, 3))
    logits[np.arange(images), labels] += skill
    powers = np.exp(skill * logits)
    return (
        labels,
        (powers / powers.sum(1, keepdims=True)).astype(np.float32),
        rng.integers(0, images // 2, images),
    )
