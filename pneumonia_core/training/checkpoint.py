"""The checkpoint of a training, after or within an epoch: its content, and its format on disk.

A folder holds `state.json` (the initial state, the history, and within an epoch its progress) and
`state.npz`: arrays named `group.0001`, where a group is one of Learner.state(), or `best` for the averaged
weights of the best epoch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from pneumonia_core.training.history import NOT_BEGUN, EpochFigures, EpochProgress, stopped_early
from pneumonia_core.training.recipe import Recipe

ARRAYS: Final = "state.npz"
DOCUMENT: Final = "state.json"
_BEST: Final = "best"
Item = TypeVar("Item")


@dataclass(frozen=True)
class InitialState:
    """How a training starts, alike on all workers.

    `recipe` has no open choices. `first_stage` is the first network stage that trains, `fresh_from` the first
    stage without loaded weights, None where all were loaded. `loaded_layers` is the number of layers with
    loaded weights.
    """

    recipe: Recipe
    first_stage: str
    fresh_from: str | None
    loaded_layers: int


@dataclass(frozen=True)
class Checkpoint:
    """A training after its last finished epoch, or after some steps of the next one.

    `state` is Learner.state(). `best` are the averaged weights of the best epoch; only a recipe with patience
    has them. `progress` is that of the unfinished epoch; its loss is that of all workers.
    """

    initial: InitialState
    history: tuple[EpochFigures, ...]
    state: Mapping[str, np.ndarray]
    best: Sequence[np.ndarray] = field(default=())
    progress: EpochProgress = NOT_BEGUN

    @property
    def classifier_weights(self) -> list[np.ndarray]:
        return arrays_of("classifier", self.state)

    def released_weights(self) -> list[np.ndarray]:
        """The weights to release: of the best epoch where patience ran out, else the last average."""
        if stopped_early(self.initial.recipe, self.history):
            return list(self.best)
        return arrays_of("averaged", self.state)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into an existing folder."""
    arrays = {**checkpoint.state, **numbered(_BEST, checkpoint.best)}
    np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
    document = {
        **asdict(checkpoint.initial),
        **({"progress": asdict(checkpoint.progress)} if checkpoint.progress.steps else {}),
        "epoch": len(checkpoint.history),
        "history": [asdict(figures) for figures in checkpoint.history],
    }
    (folder / DOCUMENT).write_text(json.dumps(document), encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder."""
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        arrays = dict(file)
    initial = InitialState(
        recipe=Recipe(**document["recipe"]),
        first_stage=document["first_stage"],
        fresh_from=document["fresh_from"],
        loaded_layers=document["loaded_layers"],
    )
    history = tuple(EpochFigures.from_json(figures) for figures in document["history"])
    # Checkpoints after an epoch, and those of versions that made no others, have none.
    progress = EpochProgress(**document.get("progress", {}))
    return Checkpoint(initial, history, arrays, arrays_of(_BEST, arrays), progress)


def numbered(group: str, items: Sequence[Item]) -> dict[str, Item]:
    """Arrays or variables by names that keep their order: `group.0000`, `group.0001`, …"""
    return {f"{group}.{index:04}": item for index, item in enumerate(items)}


def arrays_of(group: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays of one group in their order; an empty list where there are none."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}.")]
