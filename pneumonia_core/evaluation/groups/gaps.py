"""How far the groups of a factor differ in a measure: the pair that differs most, with an interval."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.evaluation.bootstrap import Floats, estimate, patient_resamples
from pneumonia_core.evaluation.document import SubgroupGap
from pneumonia_core.evaluation.groups.factors import UNKNOWN, in_order
from pneumonia_core.evaluation.groups.subgroups import group_measures
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import NORMAL, Thresholds

# Fewer patients of a class say too little: the smallest group would make every gap.
LEAST_PATIENTS: Final = 10
_NEEDS: Final = {"auroc": (True, True), "sensitivity": (True, False), "specificity": (False, True)}


def gaps(
    scored: ScoredSet,
    thresholds: Thresholds,
    factors: Mapping[str, Sequence[str]],
    bootstrap: int = 1000,
    seed: int = 0,
) -> list[SubgroupGap]:
    """For each factor and measure the two groups that differ most, and their difference.

    Groups count that have LEAST_PATIENTS patients with pneumonia (for AUROC and sensitivity) and as many
    without (for AUROC and specificity); images of unknown group do not. All groups are measured on the same
    resamples of the patients, so the interval holds where patients are in several groups. The pair is chosen
    by the data: of many groups, some pair always differs.
    """
    rows = []
    for factor, groups in factors.items():
        names = np.array(groups, dtype=str)
        members = {name: names == name for name in in_order(groups) if name != UNKNOWN}
        if len(members) > 1:
            rows += _gaps_of_factor(factor, members, scored, thresholds, bootstrap, seed)
    return rows


def _gaps_of_factor(
    factor: str,
    members: Mapping[str, npt.NDArray[np.bool_]],
    scored: ScoredSet,
    thresholds: Thresholds,
    bootstrap: int,
    seed: int,
) -> list[SubgroupGap]:
    sampled = _sampled(members, scored, thresholds, bootstrap, seed)
    rows: list[SubgroupGap] = []
    for measure, needs in _NEEDS.items():
        values = {
            name: sampled[name][measure]
            for name, of_group in members.items()
            if _has_patients(scored, of_group, needs)
        }
        if len(values) < 2:
            continue
        highest, lowest = (pick(values, key=lambda name: values[name][0]) for pick in (max, min))
        if highest != lowest:
            gap = estimate(values[highest] - values[lowest]).as_json()
            rows.append(
                {"factor": factor, "measure": measure, "highest": highest, "lowest": lowest, "gap": gap}
            )
    return rows


def _sampled(
    members: Mapping[str, npt.NDArray[np.bool_]],
    scored: ScoredSet,
    thresholds: Thresholds,
    bootstrap: int,
    seed: int,
) -> dict[str, dict[str, Floats]]:
    """By group each measure on the data and on every resample, the same resamples for all groups."""
    groups = {name: scored.subset(of_group) for name, of_group in members.items()}
    parts: dict[str, list[dict[str, Floats]]] = {name: [] for name in members}
    for weights, _ in patient_resamples(scored.labels, scored.patient_index, bootstrap, seed):
        for name, group in groups.items():
            of_group = weights[:, members[name]]
            parts[name].append(group_measures(group.labels, group.probabilities, thresholds, of_group))
    return {
        name: {measure: np.concatenate([block[measure] for block in blocks]) for measure in _NEEDS}
        for name, blocks in parts.items()
    }


def _has_patients(scored: ScoredSet, of_group: npt.NDArray[np.bool_], needs: tuple[bool, bool]) -> bool:
    ill = scored.labels != NORMAL
    return all(
        len(np.unique(scored.patients[of_group & of_class])) >= LEAST_PATIENTS
        for needed, of_class in zip(needs, (ill, ~ill), strict=True)
        if needed
    )
