"""The alias `production` of a folder of bundles: a link to the bundle that nightly runs score with."""

import contextlib
import datetime
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.storage.errors import cannot_write, error_text
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.locks.lock import holding_lock
from pneumonia_core.system.failpoints import failpoint

ALIAS: Final = "production"
HISTORY: Final = "production.json"
_LOCKED: Final = ".production"
_FORMAT_VERSION: Final = 1
Action = Literal["promote", "rollback", "found"]
_ACTIONS: Final[tuple[str, ...]] = get_args(Action)


@dataclass(frozen=True)
class KeptBundle:
    """A bundle of the folder: its folder's name, when it was written, and whether it is in production.

    Where it cannot be opened, `bundle` is None and `problem` says why.
    """

    name: str
    in_production: bool
    written_at: datetime.datetime | None = None
    bundle: Bundle | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Promotion:
    """The bundle that is in production now, and the name of the one before; None without one."""

    bundle: Bundle
    before: str | None


@dataclass(frozen=True)
class Change:
    """One change of the alias. `found` is a link that somebody else has set.

    `bundle` is the name of its folder, or the path of one that is elsewhere. A change is written down before
    it is `made`.
    """

    action: Action
    bundle: str
    at: str
    made: bool = False


def list_bundles(models: Path) -> list[KeptBundle]:
    """The bundles in a folder by the order of their names. The hashes of their files are not checked.

    Raises InvalidInput where the folder cannot be read.
    """
    _check_folder(models)
    current = _current(models)
    try:
        folders = sorted(folder for folder in models.iterdir() if _is_bundle(folder))
    except OSError as error:
        raise _unreadable(models, error_text(error)) from error
    kept = [_kept(folder, current) for folder in folders]
    if current is None or any(bundle.in_production for bundle in kept):
        return kept
    lost = f"{models / ALIAS} points to {current}, which is not a bundle in this folder."
    return [*kept, KeptBundle(current, True, problem=lost)]


def promote(models: Path, bundle: str) -> Promotion:
    """Put this bundle of the folder into production. It is named by its folder's name or path.

    `NAME@sha256:HEX` also pins the hash of its bundle.json. Raises InvalidInput where it is not a whole
    bundle directly in this folder, or the link cannot be written.
    """
    path, at, pin = bundle.partition("@sha256:")
    with _locked(models):
        name = _name_in(models, path)
        history, before = _history(models), _current(models)
        promotion = Promotion(open_bundle(f"{models / name}{at}{pin}"), before)
        _change(models, history, "promote", name)
        return promotion


def roll_back(models: Path) -> Promotion:
    """Put the bundle into production that was there before the present one. Each call goes one back.

    Where somebody has removed the link, the last bundle comes back. Raises InvalidInput where there was none,
    or it is not whole any more.
    """
    with _locked(models):
        history, before = _history(models), _current(models)
        stack = _in_production(history)
        earlier = stack if before is None else stack[:-1]
        if not earlier:
            raise InvalidInput(
                f"{models}: no bundle was in production before the present one.", Remedy.PROMOTE
            )
        name = earlier[-1]
        if not (models / name).exists():
            raise InvalidInput(
                f"{models / name} was in production before the present one, and has gone.", Remedy.PROMOTE
            )
        promotion = Promotion(open_bundle(models / name), before)
        _change(models, history, "promote" if before is None else "rollback", name)
        return promotion


def _check_folder(models: Path) -> None:
    # `Path` takes the second slash of a URI away.
    if str(models).startswith(("s3:/", "gs:/", "abfs:/", "file:/")):
        raise _unreadable(models, "it is not a path of this machine")
    if not models.is_dir():
        raise _unreadable(models, "it is not a folder")


def _unreadable(models: Path, why: str) -> InvalidInput:
    return InvalidInput(f"{models} cannot be read: {why}. Give the folder that trainings write bundles to.")


def _is_bundle(folder: Path) -> bool:
    # A hidden one is being written, or the link of a promotion that was killed.
    if folder.name == ALIAS or folder.name.startswith("."):
        return False
    try:
        return (folder / "bundle.json").is_file()
    except OSError:
        # Nobody may look into it, such as lost+found.
        return False


def _kept(folder: Path, current: str | None) -> KeptBundle:
    kept = KeptBundle(folder.name, folder.name == current)
    try:
        seconds = (folder / "bundle.json").stat().st_mtime
        written_at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return replace(kept, written_at=written_at, bundle=open_bundle(folder, only=frozenset()))
    except InvalidInput as error:
        return replace(kept, problem=error.text)
    except OSError as error:
        return replace(kept, problem=f"{folder}: {error_text(error)}.")


@contextlib.contextmanager
def _locked(models: Path) -> Iterator[None]:
    """One change of the alias at a time."""
    _check_folder(models)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(holding_lock(open_location(str((models / _LOCKED).absolute()))))
        except OSError as error:
            raise cannot_write(str(models), "cannot write there", error) from error
        yield


def _name_in(models: Path, bundle: str) -> str:
    """The name of a bundle's folder, which must be directly in `models`: a link stays valid where that is
    mounted elsewhere.
    """
    given = Path(bundle)
    folder = _resolved(given if given.is_absolute() or len(given.parts) > 1 else models / given)
    if folder is None or folder.parent != models.resolve():
        raise InvalidInput(f"{bundle} is not in {models}. Give the name of a bundle that is directly in it.")
    return folder.name


def _resolved(path: Path) -> Path | None:
    """The path without links; None where they go round in a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return None


def _current(models: Path) -> str | None:
    """What `production` points to: the name of a folder here, else a path. None without the alias."""
    alias = models / ALIAS
    if alias.is_symlink():
        target = _resolved(alias) or alias.absolute()
        return target.name if target.parent == models.resolve() and target.name != ALIAS else str(target)
    if alias.exists():
        raise InvalidInput(f"{alias} is not a link to a bundle. Rename it, so that the alias can be written.")
    return None


def _history(models: Path) -> list[Change]:
    """All changes of the alias, oldest first, up to its present state.

    The process of the last one may have died before it was made: the link tells. A link that shows something
    else than was made was set by somebody else.
    """
    history, current = _written_history(models), _current(models)
    if history and not history[-1].made:
        history[-1] = replace(history[-1], made=history[-1].bundle == current)
    if current is not None and _top(history) != current:
        history.append(Change("found", current, _now(), made=True))
    return history


def _written_history(models: Path) -> list[Change]:
    file = models / HISTORY
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format_version"] > _FORMAT_VERSION:
            raise InvalidInput(f"{file} was written by a newer version of pneumonia. Update pneumonia.")
        history = [Change(**change) for change in document["history"]]
        if not all(change.action in _ACTIONS and isinstance(change.bundle, str) for change in history):
            raise ValueError("changes of an unknown kind")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{file} cannot be read: it says what was in production before. Restore it. To start over, "
            "delete it."
        ) from error
    return history


def _in_production(history: list[Change]) -> list[str]:
    """The bundles to go back through, the present one last."""
    stack: list[str] = []
    for change in history:
        if not change.made:
            continue
        if change.action == "rollback":
            stack = stack[:-1]
        elif stack[-1:] != [change.bundle]:
            stack.append(change.bundle)
    return stack


def _top(history: list[Change]) -> str | None:
    return next(reversed(_in_production(history)), None)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _change(models: Path, history: list[Change], action: Action, name: str) -> None:
    """Write the change down, then let the link show it at once: no reader finds it missing."""
    change = Change(action, name, _now())
    _write_history(models, [*history, change])
    temporary = models / f".{ALIAS}-{secrets.token_hex(4)}"
    try:
        failpoint("production.link", str(models / ALIAS))
        temporary.symlink_to(name)
        temporary.replace(models / ALIAS)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(str(models / ALIAS), "cannot write this link", error) from error
    failpoint("production.made", str(models / ALIAS))
    # Whoever reads that it is not made looks at the link: a disk that is full by now does no harm.
    with contextlib.suppress(PneumoniaError):
        _write_history(models, [*history, replace(change, made=True)])


def _write_history(models: Path, history: list[Change]) -> None:
    file = models / HISTORY
    document = {"format_version": _FORMAT_VERSION, "history": [asdict(change) for change in history]}
    try:
        write_bytes(open_location(str(file.absolute())), f"{json.dumps(document, indent=2)}\n".encode())
    except OSError as error:
        raise cannot_write(str(file), "cannot write there", error) from error
