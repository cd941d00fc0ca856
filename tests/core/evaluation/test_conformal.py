"""Findings sets hold the truth as often as asked, class by class."""

import numpy as np
import pytest
from support.scores import scored as drawn

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.conformal import findings_set_figures, fit_conformal
from pneumonia_core.evaluation.scored_set import ScoredSet
from pneumonia_core.findings import (
    CLASSES,
    Conformal,
    Thresholds,
    always_in_set,
    findings,
    findings_sets,
    in_findings_set,
)

HALVES = Thresholds(0.5, 0.5)


def images(count, seed, skill=1.0):
    labels, probabilities, patients = drawn(count, seed, skill)
    return ScoredSet.of(labels, patients, probabilities)


def shares_covered(scored, thresholds, conformal):
    members = in_findings_set(scored.probabilities, thresholds, conformal)
    return [members[scored.labels == label, label].mean() for label in range(len(CLASSES))]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_of_images_held_out_cover_each_class_as_asked(coverage):
    conformal = fit_conformal(images(100_000, 1), HALVES, coverage)
    assert shares_covered(images(100_000, 2), HALVES, conformal) == pytest.approx([coverage] * 3, abs=0.01)


def test_sets_cover_as_asked_whatever_thresholds_and_calibration_are():
    def skewed(seed):
        some = images(100_000, seed)
        powers = some.probabilities**3 * (4, 1, 1)
        return ScoredSet.of(some.labels, some.patients, powers / powers.sum(axis=1, keepdims=True))

    thresholds = Thresholds(0.2, 0.7)
    conformal = fit_conformal(skewed(1), thresholds, 0.9)
    assert shares_covered(skewed(2), thresholds, conformal) == pytest.approx([0.9] * 3, abs=0.01)


def test_class_that_the_finding_covers_more_often_stays_covered_as_often():
    fresh = images(100_000, 2, skill=3.0)
    conformal = fit_conformal(images(100_000, 1, skill=3.0), HALVES, 0.9)
    always = always_in_set(fresh.probabilities, HALVES)
    expected = [always[fresh.labels == label, label].mean() for label in range(len(CLASSES))]
    assert min(expected) > 0.92
    assert shares_covered(fresh, HALVES, conformal) == pytest.approx(expected, abs=1e-3)
    assert findings_set_figures(fresh, HALVES, conformal, bootstrap=0)["mean_size"]["value"] < 1.01


def test_coverage_of_folds_is_within_a_hundredth_of_the_level():
    whole = images(60_000, 3)
    fold = whole.patients % 3
    covered = np.mean(
        [
            shares_covered(
                whole.subset(fold == k), HALVES, fit_conformal(whole.subset(fold != k), HALVES, 0.9)
            )
            for k in range(3)
        ],
        axis=0,
    )
    assert covered == pytest.approx([0.9] * 3, abs=0.01)


def test_few_images_rule_nothing_out():
    conformal = fit_conformal(images(20, 4), HALVES, 0.95)
    assert (conformal.normal, conformal.bacterial, conformal.viral) == (0, 0, 0)


def test_set_is_never_empty_and_holds_the_finding_and_the_most_probable_class():
    some = images(3000, 5, skill=2.0)
    for thresholds in (HALVES, Thresholds(0.05, 0.95), Thresholds(0.95, 0.05)):
        conformal = fit_conformal(some, thresholds, 0.5)
        sets = [text.split(",") for text in findings_sets(some.probabilities, thresholds, conformal)]
        probable = [CLASSES[k] for k in some.probabilities.argmax(axis=1)]
        for names, found, best in zip(sets, findings(some.probabilities, thresholds), probable, strict=True):
            assert {found, best} <= {*names}
            assert names == [name for name in CLASSES if name in names]


def test_sets_are_named_in_the_order_of_the_classes():
    probabilities = [[0.9, 0.05, 0.05], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.4, 0.2, 0.4]]
    sets = findings_sets(probabilities, HALVES, Conformal(0.9, 0.3, 0.25, 0.35))
    assert sets.tolist() == ["normal", "bacterial,viral", "normal,bacterial,viral", "normal,viral"]


def test_figures_are_the_coverage_by_class_and_the_sizes_of_the_sets():
    some = images(600, 6)
    conformal = fit_conformal(some, HALVES, 0.9)
    figures = findings_set_figures(some, HALVES, conformal, bootstrap=50)
    sizes = in_findings_set(some.probabilities, HALVES, conformal).sum(axis=1)
    assert figures["coverage"] == 0.9
    values = [measure["value"] for measure in figures["covered"].values()]
    assert values == pytest.approx(shares_covered(some, HALVES, conformal))
    size = figures["mean_size"]
    assert size["value"] == pytest.approx(sizes.mean())
    assert size["low"] < size["value"] < size["high"]
    assert figures["images_by_size"] == [(sizes == n).sum() for n in (1, 2, 3)]


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90])
def test_coverage_is_a_share(coverage):
    with pytest.raises(InvalidInput, match="coverage"):
        fit_conformal(images(50, 0), HALVES, coverage)
