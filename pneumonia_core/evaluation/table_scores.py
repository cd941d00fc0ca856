"""A labelled set's rows of the results table, and their evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pneumonia_core.archives.manifests import SOURCE_MODE_COLUMN
from pneumonia_core.domain import Domain
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.evaluation.conformal import findings_set_figures
from pneumonia_core.evaluation.document import Evaluation
from pneumonia_core.evaluation.evaluate import evaluate
from pneumonia_core.evaluation.groups.factors import groups_of, size_groups
from pneumonia_core.evaluation.groups.gaps import gaps
from pneumonia_core.evaluation.groups.subgroups import subgroups
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.evaluation.selective.risk_coverage import risk_coverage
from pneumonia_core.findings import CLASSES, Conformal, Thresholds

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TableScores:
    """The images of a labelled set that have a score, and what the table knows of them.

    `scored` holds them in the order of `positions`, int64 [N], their places in the labelled set. Sizes in
    pixels and colour modes are those of the sources, None where unknown. `in_domain` is None where the bundle
    cannot tell. `engine` and `precision` computed the scores; precision is None in rows of version 0.1.0.
    `rejected` counts the other images by reason.
    """

    scored: ScoredSet
    positions: npt.NDArray[np.int64]
    widths: list[int | None]
    heights: list[int | None]
    modes: list[str | None]
    in_domain: list[bool | None]
    engine: str
    precision: str | None
    rejected: dict[str, int]


def read_scores(labels: Sequence[int], patients: Sequence[str], rows: Sequence[Row]) -> TableScores:
    """The scores of a labelled set whose images have these `rows`, in its order.

    Raises PneumoniaError where no image has a score.
    """
    reasons = Counter(row["reject_reason"] for row in rows if row["status"] == "rejected")
    rejected = dict(sorted(reasons.items()))
    positions = [position for position, row in enumerate(rows) if row["status"] == "scored"]
    if not positions:
        counts = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
        raise PneumoniaError(
            f"none of the images could be scored ({counts}), so there is nothing to measure. Fix that and "
            "run the same command again."
        )
    kept = [rows[position] for position in positions]
    return TableScores(
        ScoredSet.of(
            [labels[position] for position in positions],
            [patients[position] for position in positions],
            [[row[f"p_{name}"] for name in CLASSES] for row in kept],
        ),
        np.array(positions, np.int64),
        [row["width"] for row in kept],
        [row["height"] for row in kept],
        [row[SOURCE_MODE_COLUMN] for row in kept],
        [row["in_domain"] for row in kept],
        kept[0]["engine"],
        kept[0]["precision"],
        rejected,
    )


def evaluate_table(
    scores: TableScores,
    thresholds: Thresholds,
    domain: Domain | None,
    *,
    by: Mapping[str, Sequence[object]] | None = None,
    conformal: Conformal | None = None,
    prevalence: float | None = None,
    calibrated_at: float | None = None,
    bootstrap: int = 1000,
) -> Evaluation:
    """As `evaluate`, with figures by group and of findings sets, the share out of domain, and rejections.

    Groups are those of `by`, {factor: value of each image of the labelled set} (`factors.groups_of`), of
    image size and of colour mode.
    """
    factors = {
        **{
            factor: groups_of(factor, [values[position] for position in scores.positions])
            for factor, values in (by or {}).items()
        },
        "image size": size_groups(scores.widths, scores.heights),
        "colour mode": [mode or "unknown" for mode in scores.modes],
    }
    evaluation = evaluate(
        scores.scored, thresholds, prevalence=prevalence, calibrated_at=calibrated_at, bootstrap=bootstrap
    )
    evaluation["engine"] = scores.engine
    if scores.precision is not None:
        evaluation["precision"] = scores.precision
    evaluation["subgroups"] = subgroups(scores.scored, thresholds, factors, bootstrap)
    evaluation["subgroup_gaps"] = gaps(scores.scored, thresholds, factors, bootstrap)
    evaluation["risk_coverage"] = risk_coverage(scores.scored, thresholds, bootstrap)
    evaluation["rejected"] = scores.rejected
    if conformal is not None:
        evaluation["findings_sets"] = findings_set_figures(scores.scored, thresholds, conformal, bootstrap)
    if domain is not None:
        flagged = sum(familiar is False for familiar in scores.in_domain)
        evaluation["domain"] = {
            "threshold": domain.threshold,
            "flagged_share": flagged / len(scores.in_domain),
        }
    return evaluation
