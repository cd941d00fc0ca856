"""The rates of a bundle's engines on this machine, measured on a few batches of each."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import BATCH_SIZE, Engine
from pneumonia_core.bundles.exported import use_precision

# Images/s of each engine and precision; 0 of one that does not open on the machine.
Rates = Mapping[EngineChoice, float]

# A small network computes several batches in this time, a large one computes one.
_ROUND_S: Final = 0.2
# After this time no further engine is opened: the machine is slow or busy, and images wait.
_LIMIT_S: Final = 60.0
# An engine this near to the fastest has a second round, so that what disturbed the first does not decide.
_NEAR: Final = 0.75


def measure_rates(
    choices: Sequence[EngineChoice], open_engine: Callable[[EngineChoice], Engine | None], image_size: int
) -> dict[EngineChoice, float]:
    """Images/s of each choice, by its fastest batch of noise; of fewer choices where that takes too long.

    `open_engine` gives None for one that does not open here. Each is open until the last one is measured, but
    TensorFlow's once for all its precisions.
    """
    images = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE, image_size, image_size), np.uint8)
    started = time.monotonic()
    opened: dict[EngineChoice, Engine] = {}
    rates: dict[EngineChoice, float] = {}
    # Nothing takes as long to open as TensorFlow.
    for choice in sorted(choices, key=lambda choice: choice.engine == "tensorflow"):
        engine = _already_open(opened, choice)
        if engine is None and rates and time.monotonic() - started > _LIMIT_S:
            continue
        engine = engine or open_engine(choice)
        if engine is None:
            rates[choice] = 0.0
            continue
        opened[choice] = engine
        use_precision(choice.engine, choice.precision)
        # The first batch also chooses kernels.
        engine(images)
        rates[choice] = _rate(engine, images)
    near = [choice for choice in opened if rates[choice] >= _NEAR * max(rates.values())]
    for choice in near if len(near) > 1 else ():
        use_precision(choice.engine, choice.precision)
        rates[choice] = max(rates[choice], _rate(opened[choice], images))
    return rates


def _already_open(opened: Mapping[EngineChoice, Engine], choice: EngineChoice) -> Engine | None:
    """TensorFlow's engine, open in another precision: its precision is the process's."""
    if choice.engine != "tensorflow":
        return None
    return next((engine for other, engine in opened.items() if other.engine == choice.engine), None)


def _rate(engine: Engine, images: np.ndarray) -> float:
    """Images/s of the fastest of the batches that fit in a round, at least one."""
    until = time.perf_counter() + _ROUND_S
    fastest_s = _seconds(engine, images)
    while time.perf_counter() < until:
        fastest_s = min(fastest_s, _seconds(engine, images))
    return len(images) / fastest_s


def _seconds(engine: Engine, images: np.ndarray) -> float:
    started = time.perf_counter()
    engine(images)
    return time.perf_counter() - started
