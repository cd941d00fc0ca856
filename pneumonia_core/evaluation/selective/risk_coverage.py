"""Risk and coverage: how accurate the findings are that a model is surest of.

A model that may abstain answers the images that it is surest of. The share of the images that it answers is
its coverage, the share of wrong findings among those its selective risk (El-Yaniv and Wiener, Journal of
Machine Learning Research 11, 2010).
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from pneumonia_core.evaluation.bootstrap import Floats, effective_patients, estimate, patient_resamples
from pneumonia_core.evaluation.document import RiskCoverage
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import NORMAL, Thresholds, p_pneumonia

COVERAGES: Final = tuple(percent / 100 for percent in range(5, 101, 5))
_FLOOR: Final = 1e-7


def confidence(probabilities: npt.NDArray[np.float32], threshold: float) -> Floats:
    """How sure the finding pneumonia or normal is, float64 [N] for probabilities [N, 3].

    It is the distance of the log-odds of p_pneumonia from those of the threshold: 0 at the threshold, where
    the finding changes.
    """
    total = p_pneumonia(probabilities).astype(np.float64)
    # Near 1 the sum of two float32 is too coarse to rank by.
    odds = np.log(np.maximum(total, _FLOOR)) - np.log(np.maximum(probabilities[:, NORMAL], _FLOOR))
    return np.abs(odds - logit(np.clip(threshold, _FLOOR, 1 - _FLOOR)))


def risk_coverage(
    scored: ScoredSet, thresholds: Thresholds, bootstrap: int = 1000, seed: int = 0
) -> RiskCoverage:
    """The accuracy of pneumonia or normal on the surest images, over their share, and the area AURC.

    AURC is the mean selective risk over all coverages (Geifman, Uziel and El-Yaniv, ICLR 2019): 0 is
    perfect, and a model that does not know how sure it is has its error rate. Intervals are over resamples of
    the patients (`bootstrap.estimate`).
    """
    wrong = (p_pneumonia(scored.probabilities) >= np.float32(thresholds.pneumonia)) != (
        scored.labels != NORMAL
    )
    sure = confidence(scored.probabilities, thresholds.pneumonia)
    curve = _curve_of(sure, wrong)
    blocks = [
        curve(weights)
        for weights, _ in patient_resamples(scored.labels, scored.patient_index, bootstrap, seed)
    ]
    accuracies, areas = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return {
        "task": "pneumonia_vs_normal",
        "aurc": estimate(areas).as_json(),
        "error_rate": float(wrong.mean()),
        "points": [
            {
                "coverage": coverage,
                "accuracy": estimate(
                    accuracies[:, number], effective_patients(scored.patients[_answered(sure, coverage)])
                ).as_json(),
            }
            for number, coverage in enumerate(COVERAGES)
        ],
    }


def _answered(confidence: Floats, coverage: float) -> npt.NDArray[np.bool_]:
    """The images that are answered at a coverage, bool [N]."""
    last = max(1, int(np.ceil(coverage * len(confidence) - 1e-9))) - 1
    return confidence >= np.sort(confidence)[::-1][last]


def _curve_of(confidence: Floats, wrong: npt.NDArray[np.bool_]) -> Callable[[Floats], tuple[Floats, Floats]]:
    """A function of weights [R, N] that gives accuracy at each of COVERAGES [R, C], and AURC [R].

    Images of equal confidence are answered together.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.diff(confidence[order], append=-np.inf))

    def curve(weights: Floats) -> tuple[Floats, Floats]:
        ranked = weights[:, order]
        answered = np.cumsum(ranked, axis=1)[:, ends]
        errors = np.cumsum(ranked * wrong[order], axis=1)[:, ends]
        risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
        steps = np.diff(answered, axis=1, prepend=0)
        area: Floats = (steps * risk).sum(axis=1) / answered[:, -1]
        share = answered / answered[:, -1:]
        # The first step that reaches the coverage; rounding must not ask for one more image.
        reached = np.stack([(share < coverage - 1e-9).sum(axis=1) for coverage in COVERAGES], axis=1)
        return 1 - np.take_along_axis(risk, reached, axis=1), area

    return curve
