"""How many actors share a GPU, by what 1, 2 and 3 of them compute together."""

import pytest

from pneumonia_core.bundles.rates.gpu_sharing import (
    fewest_nearly_best,
    measure_sharing,
    sum_of_kinds,
    try_one_more,
)


@pytest.mark.parametrize(
    ("images_per_s", "count"),
    [
        pytest.param([], 0, id="nothing was measured"),
        pytest.param([1000], 1, id="a second one could not be opened"),
        pytest.param([1000, 800], 1, id="two are in each other's way"),
        pytest.param([1000, 1050], 1, id="two gain less than measurements differ by"),
        pytest.param([1000, 1060], 2, id="two gain"),
        pytest.param([1000, 1600, 1650], 2, id="three gain little more"),
        pytest.param([1000, 1600, 1900], 3, id="three gain"),
    ],
)
def test_the_fewest_actors_within_five_per_cent_of_the_best_share_a_gpu(images_per_s, count):
    assert fewest_nearly_best(images_per_s) == count


@pytest.mark.parametrize(
    ("images_per_s", "most", "worth"),
    [
        ([], 3, True),
        ([1000], 1, False),
        ([1000], 2, True),
        ([1000, 1040], 3, False),
        ([1000, 1600], 2, False),
        ([1000, 1600], 3, True),
        ([1000, 1600, 1900], 3, False),
    ],
)
def test_a_third_actor_is_tried_only_where_the_second_gained(images_per_s, most, worth):
    assert try_one_more(images_per_s, most) == worth


@pytest.mark.parametrize(
    ("rates", "opening", "most", "measured"),
    [
        pytest.param([900, 1500, 1800], 3, 3, (900, 1500, 1800), id="each one gains"),
        pytest.param([900, 1500, 1800], 3, 2, (900, 1500), id="no CPUs for a third"),
        pytest.param([900, 910, 1800], 3, 3, (900, 910), id="the second gains nothing"),
        pytest.param([900, 1500], 1, 3, (900,), id="the second does not open"),
        pytest.param([900, 0], 3, 3, (900,), id="two together crash"),
        pytest.param([], 0, 3, (), id="not even one opens"),
    ],
)
def test_actors_are_added_until_one_gains_nothing_or_does_not_open(rates, opening, most, measured):
    opened = []

    def open_actor():
        opened.append(True)
        return len(opened) <= opening

    assert measure_sharing(open_actor, lambda: rates[len(opened) - 1], most) == measured


def test_gpus_of_all_kinds_count_as_far_as_all_were_measured():
    assert sum_of_kinds([((1000, 1600, 1900), 4), ((300, 310), 2)]) == (4600, 7020)
    assert sum_of_kinds([((1000, 1600), 4), ((300,), 1)]) == (4300,)
    assert sum_of_kinds([]) == ()
