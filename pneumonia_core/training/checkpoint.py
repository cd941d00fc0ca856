"""Where a worker starts: what it is told, and the first weights or the last checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pneumonia_core.training.recipe import Recipe


@dataclass(frozen=True)
class InitialState:
    """What all workers start from alike: the recipe with nothing left open, weights, epochs done."""

    recipe: Recipe
    first_stage: str
    fresh_from: str | None
    loaded_layers: int
    epoch: int
    history: tuple[dict[str, Any], ...]


def numbered(group: str, weights: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """A network's weights by names that keep their order."""
    return {f"{group}.{index:04}": array for index, array in enumerate(weights)}


def weights_of(group: str, state: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The weights that stand in a state under such names, none where there are none."""
    return [state[name] for name in sorted(state) if name.startswith(f"{group}.")]
