"""Thresholds: in a gap between the scores, independent of copies and of the class prior."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scores import scored

from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.thresholds import (
    UNKNOWN_KIND_THRESHOLD,
    choose_local_thresholds,
    choose_thresholds,
    threshold_at_sensitivity,
)
from pneumonia_core.findings import (
    BACTERIAL,
    NORMAL,
    PNEUMONIA_UNKNOWN_KIND,
    VIRAL,
    Thresholds,
    findings,
    p_pneumonia,
)

HALVES = Thresholds(0.5, 0.5)


def test_finding_follows_the_two_thresholds() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.4, 0.29, 0.31], [1, 0, 0]], np.float32)
    assert findings(probabilities, HALVES).tolist() == ["normal", "bacterial", "viral", "normal"]
    assert findings(probabilities, Thresholds(0.3, 0.8)).tolist() == ["viral", "viral", "viral", "normal"]
    assert findings(probabilities, Thresholds(0.0, 0.0)).tolist() == ["bacterial"] * 4
    assert findings(np.zeros((0, 3), np.float32), HALVES).tolist() == []


def test_probability_at_the_threshold_counts_as_ill_in_float32() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]], np.float64)
    assert p_pneumonia(probabilities).dtype == np.float32
    assert findings(probabilities, Thresholds(0.1, 1.0)).tolist() == ["bacterial"]


def test_thresholds_are_the_middle_of_a_gap_in_log_odds() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], 20)
    probabilities = np.repeat([[0.9, 0.06, 0.04], [0.5, 0.4, 0.1], [0.5, 0.1, 0.4]], 20, axis=0)
    t1, t2 = astuple(choose_thresholds(labels, probabilities))
    # Odds of 1/9 and 1.
    assert t1 == pytest.approx(0.25, abs=1e-6)
    assert t2 == pytest.approx(0.5, abs=1e-6)


def test_images_without_a_mistake_at_any_threshold_have_one_between() -> None:
    labels = np.repeat([NORMAL, BACTERIAL, VIRAL], 20)
    probabilities = np.repeat(np.eye(3), 20, axis=0)
    assert choose_thresholds(labels, probabilities) == HALVES


def test_copies_of_images_leave_the_threshold_where_it_is() -> None:
    labels, probabilities, _ = scored(400, seed=3, skill=1.5)
    once = choose_thresholds(labels, probabilities)
    assert choose_thresholds(np.tile(labels, 4), np.tile(probabilities, (4, 1)), 4) == once


def test_thresholds_do_not_follow_the_class_prior() -> None:
    labels, probabilities, _ = scored(6000, seed=8)
    rng = np.random.default_rng(1)
    few_normal = (labels != NORMAL) | (rng.random(6000) < 0.15)
    t1, t2 = astuple(choose_thresholds(labels, probabilities))
    prior_t1, prior_t2 = astuple(choose_thresholds(labels[few_normal], probabilities[few_normal]))
    assert prior_t1 == pytest.approx(t1, abs=0.1)
    assert prior_t2 == pytest.approx(t2, abs=0.05)
    assert t2 == pytest.approx(0.5, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), images=st.integers(200, 400))
def test_threshold_is_nearly_the_best_on_its_own_images(seed: int, images: int) -> None:
    labels, probabilities, _ = scored(images, seed, skill=1.5)
    t1, _ = astuple(choose_thresholds(labels, probabilities))
    ill, score = labels != NORMAL, p_pneumonia(probabilities)

    def youden(threshold: float) -> float:
        return float((score[ill] >= threshold).mean() + (score[~ill] < threshold).mean() - 1)

    def standard_error(threshold: float) -> float:
        shares = ((score[part] >= threshold).mean() for part in (ill, ~ill))
        counts = (ill.sum(), (~ill).sum())
        return float(np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True)))) + 1e-9

    best_at = max(np.append(np.unique(score), 2.0), key=youden)
    best = youden(best_at)
    assert 0 <= t1 <= 1
    assert youden(np.float32(t1)) >= best - standard_error(best_at)


def test_thresholds_need_every_class() -> None:
    with pytest.raises(InvalidInput, match="viral"):
        choose_thresholds([0, 1], [[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])


def test_images_of_an_unknown_kind_count_for_pneumonia_only() -> None:
    labels, probabilities, _ = scored(400)
    unknown = np.where(labels == NORMAL, NORMAL, PNEUMONIA_UNKNOWN_KIND)
    whole = choose_thresholds(labels, probabilities)
    assert choose_thresholds(unknown, probabilities) == Thresholds(whole.pneumonia, UNKNOWN_KIND_THRESHOLD)
    half = np.arange(400) % 2 == 0
    known = half | (labels == NORMAL)
    partly = choose_thresholds(np.where(half, labels, unknown), probabilities)
    assert partly == Thresholds(
        whole.pneumonia, choose_thresholds(labels[known], probabilities[known]).bacterial
    )


def test_threshold_at_a_sensitivity_is_the_largest_that_has_it() -> None:
    scores = np.float32([0.1, 0.3, 0.35, 0.6, 0.8, 0.9, 0.95])
    positive = np.array([False, True, False, True, True, False, True])
    # Three of four are wanted: 0.6 is in, and what lies between it and 0.35 finds the same.
    for sensitivity, expected in ((0.75, (0.6 + 0.35) / 2), (0.7, 0.475), (1.0, 0.2), (0.01, 0.925)):
        threshold = threshold_at_sensitivity(scores, positive, sensitivity)
        assert threshold == pytest.approx(expected)
        assert (scores[positive] >= threshold).mean() >= sensitivity


@pytest.mark.parametrize(
    "kinds", [(PNEUMONIA_UNKNOWN_KIND,), (BACTERIAL,), (BACTERIAL, PNEUMONIA_UNKNOWN_KIND)]
)
def test_local_images_without_both_kinds_leave_the_threshold_of_the_kind(kinds: tuple[int, ...]) -> None:
    labels, probabilities, _ = scored(300)
    chosen = np.resize([NORMAL, *kinds], 300)
    local = choose_local_thresholds(chosen, probabilities, None, Thresholds(0.5, 0.123))
    assert local.bacterial == 0.123
    both = choose_local_thresholds(labels, probabilities, None, Thresholds(0.5, 0.123))
    assert both == choose_thresholds(labels, probabilities)
