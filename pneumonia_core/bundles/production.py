"""The alias `production` of a folder of bundles: a link to the bundle that nightly runs score with."""

import contextlib
import datetime
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.storage.errors import cannot_write, error_text
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location

ALIAS: Final = "production"
HISTORY: Final = "production.json"
_FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class KeptBundle:
    """A bundle of the folder: its folder's name, when it was written, and whether `production` points to it.

    Where it cannot be opened, `bundle` is None and `problem` says why.
    """

    name: str
    in_production: bool
    written_at: datetime.datetime | None = None
    bundle: Bundle | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Promotion:
    """The bundle that `production` points to now, and the name of the one before; None without one."""

    bundle: Bundle
    before: str | None


def list_bundles(models: Path) -> list[KeptBundle]:
    """The bundles in a folder by the order of their names, without a check of their files' hashes.

    Raises InvalidInput where the folder cannot be read.
    """
    current = _current(models)
    try:
        folders = sorted(folder for folder in models.iterdir() if (folder / "bundle.json").is_file())
        kept = [_kept(folder, current) for folder in folders if folder.name != ALIAS]
    except OSError as error:
        raise InvalidInput(
            f"{models} cannot be read ({error_text(error)}). Give the folder that trainings write bundles to."
        ) from error
    if current is None or any(bundle.in_production for bundle in kept):
        return kept
    lost = f"{models / ALIAS} points to {current}, which this folder does not have as a bundle."
    return [*kept, KeptBundle(current, True, problem=lost)]


def _kept(folder: Path, current: str | None) -> KeptBundle:
    seconds = (folder / "bundle.json").stat().st_mtime
    written_at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    kept = KeptBundle(folder.name, folder.name == current, written_at)
    try:
        return replace(kept, bundle=open_bundle(folder, only=frozenset()))
    except InvalidInput as error:
        return replace(kept, problem=error.text)


def promote(models: Path, bundle: str) -> Promotion:
    """Let `production` point to this bundle of the folder, named by its folder's name or path.

    Raises InvalidInput where it is not a whole bundle directly in this folder, or the link cannot be written.
    """
    with _locked(models):
        name = _name_in(models, bundle)
        history, before = _history(models), _current(models)
        promotion = Promotion(open_bundle(models / name), before)
        if name != before:
            _point_to(models, name)
            _write_history(models, [*history, _entry(promotion.bundle, name)])
        return promotion


def roll_back(models: Path) -> Promotion:
    """Let `production` point to the bundle before the present one. Each further call goes one back.

    Raises InvalidInput where there was none, or it is not whole any more.
    """
    with _locked(models):
        history, before = _history(models), _current(models)
        if len(history) < 2:
            raise InvalidInput(
                f"{models}: no bundle was in production before the present one.", Remedy.PROMOTE
            )
        name = history[-2]["bundle"]
        promotion = Promotion(open_bundle(models / name), before)
        _point_to(models, name)
        _write_history(models, history[:-1])
        return promotion


@contextlib.contextmanager
def _locked(models: Path) -> Iterator[None]:
    """One change of the alias at a time."""
    try:
        descriptor = os.open(models, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidInput(
            f"{models} is not a folder that can be read. Give the folder that trainings write bundles to."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _name_in(models: Path, bundle: str) -> str:
    """The name of a bundle's folder, which must be directly in `models`: a link stays valid where that is
    mounted elsewhere.
    """
    given = Path(bundle)
    folder = given if given.is_absolute() or len(given.parts) > 1 else models / given
    folder = folder.resolve()
    if folder.parent != models.resolve():
        raise InvalidInput(f"{bundle} is not in {models}. Give the name of a bundle that is directly in it.")
    return folder.name


def _current(models: Path) -> str | None:
    """The name of the bundle that `production` points to; None without the alias."""
    alias = models / ALIAS
    if alias.is_symlink():
        return alias.readlink().name
    if alias.exists():
        raise InvalidInput(f"{alias} is not a link to a bundle. Rename it, so that the alias can be written.")
    return None


def _history(models: Path) -> list[dict[str, Any]]:
    """The bundles that were in production, oldest first, up to the present one.

    The link is what counts: the history is written after it, and whoever died in between wrote none. A link
    that a person set is taken into it.
    """
    try:
        written = json.loads((models / HISTORY).read_text(encoding="utf-8"))
        history = [dict(entry) for entry in written["history"]]
        names = [entry["bundle"] for entry in history]
    except FileNotFoundError:
        history, names = [], []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{models / HISTORY} cannot be read: it says what was in production before. "
            "Restore it, or delete it to start over."
        ) from error
    current = _current(models)
    if current is None:
        return history
    if current in names:
        last = len(names) - 1 - names[::-1].index(current)
        return history[: last + 1]
    return [*history, {"bundle": current, "model_id": None, "promoted_at": None}]


def _entry(bundle: Bundle, name: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"bundle": name, "model_id": bundle.model_id, "promoted_at": now}


def _point_to(models: Path, name: str) -> None:
    """Let the link point there at once: no reader finds it missing."""
    temporary = models / f".{ALIAS}-{secrets.token_hex(4)}"
    try:
        temporary.symlink_to(name)
        temporary.replace(models / ALIAS)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(str(models / ALIAS), "cannot write this link", error) from error


def _write_history(models: Path, history: list[dict[str, Any]]) -> None:
    file = models / HISTORY
    content = json.dumps({"format_version": _FORMAT_VERSION, "history": history}, indent=2)
    try:
        write_bytes(open_location(str(file.absolute())), f"{content}\n".encode())
    except OSError as error:
        raise cannot_write(str(file), "cannot write there", error) from error
