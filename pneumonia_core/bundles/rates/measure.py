"""The rates of a bundle's engines on this machine, measured on a few batches of each."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import Engine, files_prefix
from pneumonia_core.bundles.exported import use_precision

# Images/s of each engine and precision; 0 of one that does not open on the machine.
Rates = Mapping[EngineChoice, float]

# On CPUs an engine computes nearly as many images/s in batches of 8 as of 32, in a quarter of the time.
MEASURED_BATCH: Final = 8
# A small network computes several batches in this time, a large one computes one.
_TURN_S: Final = 0.1
_TURNS: Final = 2
# After this time no further engine is opened: the machine is slow or busy, and images wait.
_LIMIT_S: Final = 60.0
# An engine this near to the fastest has all turns, so that what disturbed the first does not decide.
_NEAR: Final = 0.6


def measure_rates(
    choices: Sequence[EngineChoice],
    open_engine: Callable[[EngineChoice], Engine | None],
    image_size: int,
    batch_size: int = MEASURED_BATCH,
) -> dict[EngineChoice, float]:
    """Images/s of each choice, by its fastest batch of noise; of the first ones where opening takes too long.

    `open_engine` gives None for one that does not open here. They are measured by turns, so that other work
    of the machine slows all of them. TensorFlow is opened once for float32 and bfloat16.
    """
    images = np.random.default_rng(0).integers(0, 255, (batch_size, image_size, image_size), np.uint8)
    engines: dict[EngineChoice, Engine] = {}
    rates: dict[EngineChoice, float] = {}
    started = time.monotonic()
    for choice in choices:
        engine = _already_open(engines, choice)
        if engine is None and rates and time.monotonic() - started > _LIMIT_S:
            continue
        engine = engine or open_engine(choice)
        rates[choice] = 0.0
        if engine is not None:
            engines[choice] = engine
            use_precision(choice.engine, choice.precision)
            # The first batch also chooses kernels.
            engine(images)
    for _ in range(_TURNS):
        near = _NEAR * max(rates.values(), default=0.0)
        for choice, engine in engines.items():
            if not rates[choice] or rates[choice] >= near:
                use_precision(choice.engine, choice.precision)
                rates[choice] = max(rates[choice], _rate(engine, images))
    return rates


def with_measured(known: Rates, measured: Rates) -> dict[EngineChoice, float]:
    """The known rates, and what was measured now of others, made comparable by the rate that both have.

    The machine may have had more to do in one hour than in the other.
    """
    common = [choice for choice in measured if measured[choice] and known.get(choice)]
    factor = known[common[0]] / measured[common[0]] if common else 1.0
    return {**{choice: rate * factor for choice, rate in measured.items()}, **known}


def _already_open(opened: Mapping[EngineChoice, Engine], choice: EngineChoice) -> Engine | None:
    """TensorFlow's engine, open in another precision of the same graph: that is the process's."""
    if choice.engine != "tensorflow":
        return None
    files = files_prefix(choice.engine, choice.precision)
    same = (each for each in opened if files_prefix(each.engine, each.precision) == files)
    return next((opened[each] for each in same), None)


def _rate(engine: Engine, images: np.ndarray) -> float:
    """Images/s of the fastest of the batches that fit in a turn, at least one."""
    until = time.perf_counter() + _TURN_S
    fastest_s = _seconds(engine, images)
    while time.perf_counter() < until:
        fastest_s = min(fastest_s, _seconds(engine, images))
    return len(images) / fastest_s


def _seconds(engine: Engine, images: np.ndarray) -> float:
    started = time.perf_counter()
    engine(images)
    return time.perf_counter() - started
