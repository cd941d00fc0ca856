"""Drift: the population stability index of scores, and what of it chance explains."""

import numpy as np
import pytest

from pneumonia_core.drift import BINS, measure_drift


def histogram(scores) -> tuple[int, ...]:
    return tuple(np.histogram(scores, BINS, (0.0, 1.0))[0])


def test_index_is_the_population_stability_index():
    # By hand: (0.3 - 0.5) ln(0.3 / 0.5) + (0.7 - 0.5) ln(0.7 / 0.5) = 0.169.
    # So many images leave nothing of the prior.
    now, before = (300_000, *[0] * 8, 700_000), (500_000, *[0] * 8, 500_000)
    drift = measure_drift(now, before)
    assert drift.index == pytest.approx(0.1695, abs=1e-4)
    assert (drift.images, drift.of) == (1_000_000, 1_000_000)
    assert measure_drift(before, before).index == 0


def test_drift_of_nothing_is_unknown():
    some, none = (1, *[0] * 9), (0,) * BINS
    assert measure_drift(none, some) is measure_drift(some, none) is measure_drift(some, ()) is None


@pytest.mark.parametrize(("images", "of"), [(20, 10**6), (500, 5_000)])
@pytest.mark.parametrize("shape", [(0.3, 0.5), (0.3, 30), (1, 20)], ids=["ill", "nearly all well", "well"])
def test_nights_without_a_change_hardly_ever_exceed_what_chance_gives(images, of, shape):
    generator = np.random.default_rng(5)
    shares = np.array(histogram(generator.beta(*shape, 10**6))) / 10**6
    drifts = [
        measure_drift(generator.multinomial(images, shares), generator.multinomial(of, shares))
        for _ in range(250)
    ]
    assert sum(drift.index > drift.by_chance for drift in drifts) <= 3


@pytest.mark.parametrize(("images", "of"), [(15, 10**4), (50, 10**6), (300, 1_000)])
def test_nights_with_more_ill_patients_exceed_it(images, of):
    generator = np.random.default_rng(5)
    well, ill = ([*shares, *[0] * 7, shares[0]] for shares in ([0.45, 0.1], [0.1, 0.8]))
    drift = measure_drift(
        generator.multinomial(images, np.divide(ill, sum(ill))),
        generator.multinomial(of, np.divide(well, sum(well))),
    )
    assert drift.index > max(drift.by_chance, 0.25)


def test_so_many_images_that_chance_cannot_be_drawn_are_compared():
    drift = measure_drift((2 * 10**9, *[0] * 8, 10**9), (10**9, *[0] * 8, 10**9))
    assert (drift.by_chance, drift.images, drift.of) == (0.0, 3 * 10**9, 2 * 10**9)
    assert drift.index == pytest.approx(0.1155, abs=1e-4)
