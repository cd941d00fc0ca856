"""The worst mistakes: the images whose wrong findings the model was surest of."""

import itertools
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import (
    BACTERIAL,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    Thresholds,
    bacterial_share,
    finding_labels,
    p_pneumonia,
)


class MistakeKind(StrEnum):
    MISSED = "missed pneumonia"
    FALSE_ALARM = "false alarm"
    WRONG_KIND = "wrong kind of pneumonia"


@dataclass(frozen=True)
class Mistake:
    """The image `index` of a scored set, labelled `label` and found `found`.

    `probability` is that of what was found: of normal, of pneumonia, or of the kind given pneumonia.
    """

    index: int
    kind: MistakeKind
    label: int
    found: int
    probability: float


def worst_mistakes(scored: ScoredSet, thresholds: Thresholds, count: int) -> list[Mistake]:
    """Up to `count` wrong findings, the surest first in each kind, kind after kind.

    Each kind has its share of them where there are enough.
    """
    by_kind = [_mistakes(scored, thresholds, kind) for kind in MistakeKind]
    in_turn = (each for turn in itertools.zip_longest(*by_kind) for each in turn if each is not None)
    order = list(MistakeKind)
    return sorted(itertools.islice(in_turn, count), key=lambda each: order.index(each.kind))


def _mistakes(scored: ScoredSet, thresholds: Thresholds, kind: MistakeKind) -> list[Mistake]:
    truth, found = scored.labels, finding_labels(scored.probabilities, thresholds)
    made, probability = _made(kind, truth, found, scored.probabilities)
    indices = np.flatnonzero(made)
    # Ties in the order of the images, so that the same scores give the same page.
    worst = indices[np.argsort(-probability[indices], kind="stable")]
    return [Mistake(int(i), kind, int(truth[i]), int(found[i]), float(probability[i])) for i in worst]


def _made(
    kind: MistakeKind,
    truth: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Which images [N] have this mistake, and how probable what was found is to the model, [N]."""
    if kind is MistakeKind.MISSED:
        return (truth != NORMAL) & (found == NORMAL), probabilities[:, NORMAL]
    if kind is MistakeKind.FALSE_ALARM:
        return (truth == NORMAL) & (found != NORMAL), p_pneumonia(probabilities)
    of_known_kind = (truth != NORMAL) & (truth != PNEUMONIA_UNKNOWN_KIND)
    share = bacterial_share(probabilities)
    sure = np.where(found == BACTERIAL, share, 1 - share)
    return of_known_kind & (found != NORMAL) & (found != truth), sure
