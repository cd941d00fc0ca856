"""How images are grouped, and how far the groups differ."""

import numpy as np
import pytest
from support.scores import scored

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.bootstrap import patient_resamples
from pneumonia_core.evaluation.groups.factors import groups_of, in_order
from pneumonia_core.evaluation.groups.gaps import gaps
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import NORMAL, Thresholds, p_pneumonia

HALVES = Thresholds(0.5, 0.5)


@pytest.mark.parametrize("factor", ["age", "Patient Age", "source_age_years"])
def test_ages_are_cut_into_bands(factor):
    groups = groups_of(factor, [0.5, "1", 4.99, 5, "17.5", 40, 64, "101", None, "", -1, "adult"])
    assert groups == [
        "0 to under 1 years", "1 to under 5 years", "1 to under 5 years", "5 to under 18 years",
        "5 to under 18 years", "40 to under 65 years", "40 to under 65 years", "65 years and more",
        "unknown", "unknown", "unknown", "unknown",
    ]  # fmt: skip
    assert in_order(groups)[2:] == groups[3:4] + groups[5:6] + groups[7:9]


def test_other_values_are_groups_as_they_are():
    assert groups_of("sex", ["F", None, " M ", ""]) == ["F", "unknown", "M", "unknown"]
    assert groups_of("stage", [3, 3]) == ["3", "3"]
    assert groups_of("age", ["young", "old"]) == ["young", "old"]


def test_a_column_that_differs_from_image_to_image_makes_no_groups():
    with pytest.raises(InvalidInput, match="'scanner_serial' has 31 values"):
        groups_of("scanner_serial", range(31))


def test_gap_is_that_of_the_groups_that_differ_most_on_the_same_resamples():
    labels, probabilities, patients = scored(900, skill=1.5)
    site = np.array(["A", "B", "C", "tiny", "unknown"])[np.r_[np.arange(885) % 3, [3] * 10, [4] * 5]]
    # Site C calls what it cannot tell pneumonia.
    worse = site == "C"
    probabilities[worse] = probabilities[worse] * 0.4 + np.float32([0, 0.3, 0.3])
    rows = gaps(ScoredSet.of(labels, patients, probabilities), HALVES, {"site": site.tolist()}, bootstrap=100)
    by_measure = {row["measure"]: row for row in rows}
    assert list(by_measure) == ["auroc", "sensitivity", "specificity"]
    row = by_measure["specificity"]
    assert row["lowest"] == "C"
    assert row["highest"] in ("A", "B")

    cleared = p_pneumonia(probabilities) < np.float32(0.5)

    def specificity(group, weights):
        well = (labels == NORMAL) & (site == group)
        return (weights[well] * cleared[well]).sum() / weights[well].sum()

    index = np.unique(patients, return_inverse=True)[1]
    weights = np.concatenate([block for block, _ in patient_resamples(labels, index, 100, 0)])
    differences = [specificity(row["highest"], some) - specificity("C", some) for some in weights]
    assert row["gap"]["value"] == pytest.approx(differences[0])
    low, high = np.quantile(differences[1:], [0.025, 0.975])
    assert (row["gap"]["low"], row["gap"]["high"]) == pytest.approx((low, high))
    assert row["gap"]["low"] > 0


def test_one_group_has_no_gap_and_missing_classes_none_that_need_them():
    labels, probabilities, patients = scored(200)
    whole = ScoredSet.of(labels, patients, probabilities)
    assert gaps(whole, HALVES, {"site": ["A"] * 200}, bootstrap=10) == []
    ill = whole.subset(labels != NORMAL)
    site = (["A", "B"] * 100)[: len(ill.labels)]
    assert [row["measure"] for row in gaps(ill, HALVES, {"site": site}, bootstrap=10)] in (
        [],
        ["sensitivity"],
    )
