"""The folder of a training in the storage: its settings, its result, and Ray Train's checkpoints."""

import json
from dataclasses import dataclass, fields
from typing import Any, Final

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
from pneumonia_core.training.recipe import Recipe

SETTINGS: Final = "settings.json"
RESULT: Final = "result.json"
FAILURE: Final = "failure.txt"
RAY_MARKER: Final = ".validate_storage_marker"
_FOLD: Final = "fold-"
# Settings for which version 0.1.0 had no option, so that they say nothing of what its user wanted.
_WITHOUT_OPTION: Final = {"warmup_epochs", "weight_decay", "label_smoothing", "averaging"}


@dataclass(frozen=True)
class TrainingRun:
    """An open training. Ray Train writes its checkpoints to `folder`, which is `name` in the storage.

    `result` is that of a finished training. A training by folds has a folder in its own for each of them,
    which is the training of one network and `part_of` the whole.
    """

    storage: Location
    name: str
    result: dict[str, Any] | None = None
    part_of: str | None = None

    @property
    def folder(self) -> Location:
        return self.storage.child(self.name)

    @property
    def command_name(self) -> str:
        """The --name that resumes the training."""
        return self.part_of or self.name

    @property
    def has_checkpoint(self) -> bool:
        """Whether the training can resume from a checkpoint."""
        return any(
            name.startswith("checkpoint") or (name.startswith(_FOLD) and self.fold(name).has_checkpoint)
            for name in list_names(self.folder)
        )

    def fold(self, name: str) -> "TrainingRun":
        """The training of this name in the folder of the whole."""
        return TrainingRun(self.folder, name, part_of=self.name)

    def open_fold(self, number: int) -> "TrainingRun":
        """The training without this fold, new or begun before, under the settings of the whole."""
        run = self.fold(f"{_FOLD}{number}")
        if not exists(run.folder.child(SETTINGS)):
            make_folder(run.folder)
            _write(run.folder.child(SETTINGS), {"settings": _settings(self)})
        return run

    def pin_data(self, digest: str) -> None:
        """Record the digest of the data. Raises InvalidInput when a resumed training had other data."""
        settings = json.loads(read_bytes(self.folder.child(SETTINGS)))
        if settings.get("data_digest", digest) != digest:
            raise InvalidInput(
                f"the training {self.command_name} began with other images. Restore them to resume. To start "
                f"over, delete {self.folder.uri} or give another --name."
            )
        _write(self.folder.child(SETTINGS), {**settings, "data_digest": digest})

    def finish(self, result: dict[str, Any]) -> None:
        """Record the result, and delete the checkpoints."""
        _write(self.folder.child(RESULT), result)
        for name in list_names(self.folder):
            entry = self.folder.child(name)
            if name.startswith(("checkpoint", _FOLD)) or name == FAILURE:
                (delete_folder if is_folder(entry) else delete_file)(entry)
        # list_names leaves out names that begin with a dot.
        delete_file(self.folder.child(RAY_MARKER))

    def keep_trace(self, trace: str) -> Location:
        """Write the traceback of an unexpected error. Returns its location."""
        location = self.folder.child(FAILURE)
        write_bytes(location, trace.encode())
        return location


def open_training(storage: Location, name: str, settings: dict[str, Any], resume: bool) -> TrainingRun:
    """The training of this name: a new one, or with `resume` the present one.

    A finished training that is resumed has its `result`. Raises InvalidInput when an unfinished training
    would be overwritten, or a resumed one has other settings, or the recipe of an earlier version.
    """
    run = TrainingRun(storage, name)
    if resume and not exists(run.folder.child(SETTINGS)):
        run = _of_earlier_version(storage, settings) or run
    if exists(run.folder.child(SETTINGS)):
        if resume:
            return _resumed(run, settings)
        if not exists(run.folder.child(RESULT)) and run.has_checkpoint:
            raise InvalidInput(
                f"the training {name} in {storage.uri} is unfinished. Add --resume to continue, give another "
                f"--name, or delete {run.folder.uri} to start over."
            )
        delete_folder(run.folder)
    elif list_names(run.folder):
        raise InvalidInput(
            f"{run.folder.uri} is not empty and not the folder of a training. "
            "Give another --name or --storage."
        )
    make_folder(run.folder)
    _write(run.folder.child(SETTINGS), {"settings": settings})
    return run


def check_nothing_else_to_resume(storage: Location, name: str, settings: dict[str, Any]) -> None:
    """Raise InvalidInput where only trainings of other options can be resumed.

    `name` is the one that the options give. With it, a changed option would begin a training of its own.
    """
    if exists(storage.child(name).child(SETTINGS)) or _of_earlier_version(storage, settings):
        return
    differences = {run.name: _difference(run, settings) for run in _unfinished(storage)}
    if differences:
        nearest = min(differences, key=lambda other: (differences[other].count(";"), other))
        raise InvalidInput(
            f"no training with these options has begun in {storage.uri}. The unfinished one {nearest} has "
            f"others: {differences[nearest]}. Give the same options to resume it. To start a new training, "
            "leave out --resume or give it a --name."
        )


def _unfinished(storage: Location) -> list[TrainingRun]:
    """The trainings that this version can resume."""
    runs = (TrainingRun(storage, name) for name in list_names(storage))
    return [
        run
        for run in runs
        if exists(run.folder.child(SETTINGS))
        and not exists(run.folder.child(RESULT))
        and run.has_checkpoint
        and not _added_since(_settings(run))
    ]


def _difference(run: TrainingRun, settings: dict[str, Any]) -> str:
    return differing_options(_settings(run), settings)


def _of_earlier_version(storage: Location, settings: dict[str, Any]) -> TrainingRun | None:
    """The training that an earlier version began with the same options, under the name that it chose."""
    for name in list_names(storage):
        run = TrainingRun(storage, name)
        if not exists(run.folder.child(SETTINGS)):
            continue
        before = _settings(run)
        comparable = (before.keys() | settings.keys()) - _WITHOUT_OPTION - _added_since(before)
        if _added_since(before) and all(before.get(key) == settings.get(key) for key in comparable):
            return run
    return None


def _resumed(run: TrainingRun, settings: dict[str, Any]) -> TrainingRun:
    earlier = bool(_added_since(_settings(run)))
    if not earlier and (changed := _difference(run, settings)):
        raise InvalidInput(
            f"the training {run.name} was started with other options: {changed}. "
            "Give the same options to resume it, or another --name to start a new one."
        )
    if exists(run.folder.child(RESULT)):
        say(f"the training {run.name} is finished")
        return TrainingRun(run.storage, run.name, json.loads(read_bytes(run.folder.child(RESULT))))
    if earlier:
        raise InvalidInput(
            f"the training {run.name} in {run.storage.uri} was begun by an earlier version, whose loss and "
            "recipe differ. Finish it with that version, or give another --name to start a new one."
        )
    return run


def _added_since(settings: dict[str, Any]) -> set[str]:
    """The fields of the recipe that the version with these settings had not."""
    return {field.name for field in fields(Recipe)} - settings.keys()


def _settings(run: TrainingRun) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(read_bytes(run.folder.child(SETTINGS)))["settings"]
    return settings


def _write(location: Location, document: dict[str, Any]) -> None:
    write_bytes(location, (json.dumps(document, indent=2, default=str) + "\n").encode())
