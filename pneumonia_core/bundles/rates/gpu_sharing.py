"""How many actors share a GPU: the fewest that compute nearly as many images/s as any number measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pneumonia_core.bundles.choice import EngineChoice

# Images/s that 1, 2, … actors compute together on a GPU, of each engine and precision.
SharedRates = Mapping[EngineChoice, tuple[float, ...]]

# More copies of a network take more memory, and have gained nothing where two have not.
MOST_ACTORS: Final = 3
# What is gained must be more than measurements differ by.
_NEARLY: Final = 0.95


def fewest_nearly_best(images_per_s: Sequence[float]) -> int:
    """How many actors a GPU gets, by the images/s that 1, 2, … actors on it compute together.

    0 where nothing was measured.
    """
    enough = _NEARLY * max(images_per_s, default=0.0)
    return next((count for count, rate in enumerate(images_per_s, start=1) if rate >= enough), 0)


def try_one_more(images_per_s: Sequence[float], most: int) -> bool:
    """Whether one more actor, of at most `most`, is worth measuring: the last one gained."""
    return len(images_per_s) < most and fewest_nearly_best(images_per_s) == len(images_per_s)


def measure_sharing(
    open_actor: Callable[[], bool], rate: Callable[[], float], most: int
) -> tuple[float, ...]:
    """The images/s of 1, 2, … actors on a GPU; none where not even a first one opens.

    `open_actor` adds an actor, or says that it does not open. `rate` is what all open ones compute at the
    same time, 0 where one of them crashes.
    """
    rates: list[float] = []
    while try_one_more(rates, most) and open_actor() and (together := rate()):
        rates.append(together)
    return tuple(rates)


def sum_of_kinds(kinds: Sequence[tuple[Sequence[float], int]]) -> tuple[float, ...]:
    """The images/s of all GPUs with 1, 2, … actors each, by those of a GPU of each kind and how many it has.

    As far as all kinds were measured: where one has no room for another actor, none gets it.
    """
    measured = min((len(rates) for rates, _ in kinds), default=0)
    return tuple(sum(rates[number] * gpus for rates, gpus in kinds) for number in range(measured))
