"""Engines are timed where they are to score: each that opens has a rate, in each of its precisions."""

import time

import numpy as np
import pytest

from pneumonia_core.bundles.choice import EngineChoice, load_engine
from pneumonia_core.bundles.engines import Scores
from pneumonia_core.bundles.exported import use_precision
from pneumonia_core.bundles.rates import measure
from pneumonia_core.bundles.rates.measure import measure_rates, with_measured
from pneumonia_core.system.environment import cpu_has_bfloat16

OPENVINO, TENSORFLOW, HALF = (
    EngineChoice("openvino", "float32", False),
    EngineChoice("tensorflow", "float32", False),
    EngineChoice("tensorflow", "bfloat16", False),
)


class Paced:
    """An engine that takes a given time for each batch."""

    name, precision = "paced", "float32"

    def __init__(self, *seconds):
        self._seconds = list(seconds)
        self.batches = 0

    def __call__(self, images):
        time.sleep(self._seconds[min(self.batches, len(self._seconds) - 1)])
        self.batches += 1
        return Scores(np.zeros((len(images), 3), np.float32), None)


def test_engines_of_a_bundle_have_rates_and_tensorflow_is_opened_once_for_all_precisions(
    tiny_bundle, exact_float32
):
    opened = []

    def open_engine(choice):
        opened.append(choice)
        return load_engine(tiny_bundle, choice.engine, choice.precision, threads=1)

    choices = [OPENVINO, TENSORFLOW, *([HALF] if cpu_has_bfloat16() else [])]
    rates = measure_rates(choices, open_engine, tiny_bundle.image_size)
    assert list(rates) == choices
    assert all(rate > 0 for rate in rates.values())
    assert opened == [OPENVINO, TENSORFLOW]


def test_rates_of_another_hour_are_made_comparable_by_the_one_that_both_have():
    """The machine may have been twice as busy."""
    known = {OPENVINO: 60.0, HALF: 0.0}
    assert with_measured(known, {TENSORFLOW: 33.0, OPENVINO: 30.0}) == {**known, TENSORFLOW: 66.0}
    assert with_measured({}, {TENSORFLOW: 33.0}) == {TENSORFLOW: 33.0}
    # Where that one does not open any more.
    assert with_measured(known, {TENSORFLOW: 33.0, OPENVINO: 0.0}) == {**known, TENSORFLOW: 33.0}


def test_open_tensorflow_engine_follows_the_precision_of_its_process(tiny_bundle, exact_float32):
    """So that one that is open is timed in both."""
    if not cpu_has_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    images = np.random.default_rng(0).integers(0, 255, (32, 64, 64), np.uint8)
    engine = load_engine(tiny_bundle, "tensorflow", "float32")
    exact = engine(images).probabilities
    use_precision("tensorflow", "bfloat16")
    half = engine(images).probabilities
    use_precision("tensorflow", "float32")
    np.testing.assert_array_equal(engine(images).probabilities, exact)
    assert np.abs(half - exact).max() > 0


def test_engine_that_does_not_open_has_no_rate_and_the_others_have_theirs():
    engines = {OPENVINO: None, TENSORFLOW: Paced(0.01)}
    rates = measure_rates(list(engines), engines.get, 8)
    assert rates[OPENVINO] == 0
    assert 8 / 1.0 < rates[TENSORFLOW] <= 8 / 0.01


@pytest.mark.parametrize("batch_size", [8, 128])
def test_batches_are_of_the_size_that_is_asked_for(batch_size):
    """A GPU is filled by 128."""
    sizes = set()

    class Noted(Paced):
        def __call__(self, images):
            sizes.add(images.shape)
            return super().__call__(images)

    measure_rates([OPENVINO], {OPENVINO: Noted(0.1)}.get, 16, batch_size)
    assert sizes == {(batch_size, 16, 16)}


def test_what_disturbs_one_turn_does_not_decide():
    """The second one was slowed down at first, in all batches of its first turn but little."""
    disturbed = Paced(0.0, 0.26, 0.1)
    undisturbed = Paced(0.0, 0.2)
    rates = measure_rates([OPENVINO, TENSORFLOW], {OPENVINO: disturbed, TENSORFLOW: undisturbed}.get, 8)
    assert rates[OPENVINO] > rates[TENSORFLOW]


def test_engines_are_measured_by_turns():
    """A machine that becomes busy slows all of them."""
    turns = []

    class Noted(Paced):
        def __call__(self, images):
            turns.append(self)
            return super().__call__(images)

    one, other = Noted(0.2), Noted(0.2)
    measure_rates([OPENVINO, TENSORFLOW], {OPENVINO: one, TENSORFLOW: other}.get, 8)
    assert turns == [one, other] * 3


def test_slow_engines_are_not_timed_a_second_time():
    fast, slow = Paced(0.05), Paced(0.4)
    measure_rates([OPENVINO, TENSORFLOW], {OPENVINO: fast, TENSORFLOW: slow}.get, 8)
    assert slow.batches == 2


def test_nothing_more_is_opened_on_a_machine_that_takes_too_long(monkeypatch):
    """What is likely the fastest comes first."""
    monkeypatch.setattr(measure, "_LIMIT_S", 0.0)
    engines = {OPENVINO: Paced(0.0), TENSORFLOW: Paced(0.0)}
    assert list(measure_rates(list(engines), engines.get, 8)) == [OPENVINO]
