"""A training's own folder in the storage: what was asked, whether it is finished, what it gave."""

import json
from dataclasses import dataclass
from typing import Any

from jobs.console.output import say
from pneumonia_core.errors import InvalidInput, differing_options
from pneumonia_core.storage.files import (
    delete_file,
    delete_folder,
    exists,
    is_folder,
    list_names,
    make_folder,
    read_bytes,
    write_bytes,
)
from pneumonia_core.storage.location import Location

SETTINGS = "settings.json"
RESULT = "result.json"
FAILURE = "failure.txt"
RAY_MARKER = ".validate_storage_marker"


@dataclass(frozen=True)
class TrainingRun:
    """An open training: Ray Train keeps its checkpoints in `folder`, which is `name` in the storage."""

    storage: Location
    name: str
    result: dict[str, Any] | None = None

    @property
    def folder(self) -> Location:
        return self.storage.child(self.name)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from; without, the training starts anew."""
        return any(name.startswith("checkpoint") for name in list_names(self.folder))

    def pin_data(self, digest: str) -> None:
        """Remember which data is trained on. Raises InvalidInput when a resumed training had other data."""
        settings = json.loads(read_bytes(self.folder.child(SETTINGS)))
        if settings.get("data_digest", digest) != digest:
            raise InvalidInput(
                f"the images are not those that the training {self.name} began with. Restore them to resume it, or "
                f"delete {self.folder.uri} or give another --name to start over."
            )
        _write(self.folder.child(SETTINGS), {**settings, "data_digest": digest})

    def data_digest(self) -> str:
        """The digest that `pin_data` remembered."""
        return str(json.loads(read_bytes(self.folder.child(SETTINGS)))["data_digest"])

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result; the checkpoints have done their duty."""
        _write(self.folder.child(RESULT), result)
        for name in list_names(self.folder):
            entry = self.folder.child(name)
            if name.startswith("checkpoint") or name == FAILURE:
                (delete_folder if is_folder(entry) else delete_file)(entry)
        # No listing shows what begins with a dot.
        delete_file(self.folder.child(RAY_MARKER))

    def keep_trace(self, trace: str) -> Location:
        """Write an unexpected error's traceback for whoever repairs it; where it is."""
        place = self.folder.child(FAILURE)
        write_bytes(place, trace.encode())
        return place


def open_training(storage: Location, name: str, settings: dict[str, Any], resume: bool) -> TrainingRun:
    """The training of that name: a new one, or with `resume` the one that is there.

    A finished one that is resumed has its `result`. Raises InvalidInput when an unfinished training would
    be overwritten, or a resumed one was asked something else.
    """
    run = TrainingRun(storage, name)
    if exists(run.folder.child(SETTINGS)):
        if resume:
            return _resumed(run, settings)
        if not exists(run.folder.child(RESULT)) and run.has_checkpoint:
            raise InvalidInput(
                f"an unfinished training {name} is in {storage.uri}. Add --resume to go on with it, or "
                f"give another --name, or delete {run.folder.uri} to start over."
            )
        delete_folder(run.folder)
    elif list_names(run.folder):
        raise InvalidInput(
            f"{run.folder.uri} is no training's folder, and not empty. Give another --name or --storage."
        )
    make_folder(run.folder)
    _write(run.folder.child(SETTINGS), {"settings": settings})
    return run


def _resumed(run: TrainingRun, settings: dict[str, Any]) -> TrainingRun:
    before = json.loads(read_bytes(run.folder.child(SETTINGS)))["settings"]
    if changed := differing_options(before, settings):
        raise InvalidInput(
            f"the training {run.name} was started with other options:\n{changed}\n"
            "Give the same options to resume it, or another --name to begin a new one."
        )
    if exists(run.folder.child(RESULT)):
        say(f"the training {run.name} is finished")
        return TrainingRun(run.storage, run.name, json.loads(read_bytes(run.folder.child(RESULT))))
    return run


def _write(place: Location, document: dict[str, Any]) -> None:
    write_bytes(place, (json.dumps(document, indent=2, default=str) + "\n").encode())
