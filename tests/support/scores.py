"""Measures of arrays of labels, probabilities and patients."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from pneumonia_core.evaluation import evaluate as evaluation
from pneumonia_core.evaluation import subgroups as groups
from pneumonia_core.evaluation.document import Evaluation, Subgroup
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
