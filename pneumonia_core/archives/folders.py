"""A folder on this machine: the images in it, depth first, names in byte order."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from stat import S_ISDIR, S_ISREG
from typing import Final

from pneumonia_core.archives.classify import NameClass, classify_content, classify_folder, classify_path
from pneumonia_core.archives.containers.members import list_classified, list_named
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.archives.position import WHOLE, Rest
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import PneumoniaError, RejectedImage, Remedy
from pneumonia_core.storage.backend import StoredFile, as_text
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.local import local_file

# Error numbers that say that nothing has this name. Others are the disk's, or images may be out of reach.
NO_SUCH_NAME: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO))
NO_PERMISSION: Final = frozenset((errno.EACCES, errno.EPERM))
# Every disk has one at its root, for the administrator alone.
_LOST_AND_FOUND: Final = "lost+found"
# Each name in a folder, and whether it is a folder itself.
_Names = Iterator[tuple[str, bool]]


def opens_locally(path: str) -> bool:
    """Whether there is a file or folder. Raises OSError where it exists and cannot be read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except (FileNotFoundError, NotADirectoryError):
        return False
    if S_ISDIR(status.st_mode):
        os.scandir(path).close()
    else:
        # Opening a FIFO would block until someone writes to it.
        if not S_ISREG(status.st_mode):
            raise OSError("no regular file")
        open(path, "rb").close()  # noqa: PTH123 - a plain path is the raw name
    return True


def list_local(root: str, skipped: Counter[SkipReason], rest: Rest = WHOLE) -> Iterator[ListedImage]:
    """The images in a folder; of a file, itself or its members. Only those of the `rest`.

    Raises PneumoniaError where the disk fails.
    """
    try:
        status = os.stat(root)  # noqa: PTH116 - a plain path is the raw name
        opened = _names(root) if S_ISDIR(status.st_mode) else local_file(root, status)
    except (OSError, RejectedImage) as error:
        why = error.detail if isinstance(error, RejectedImage) else error_text(error)
        raise PneumoniaError(
            f"file://{root}: the archive cannot be opened ({why}).", Remedy.FIX_AND_RUN_AGAIN
        ) from error
    if not isinstance(opened, StoredFile):
        yield from _walk(root, opened, skipped, rest)
    elif not rest.passes(opened.uri):
        yield from list_named(opened, skipped, rest.within(opened.uri))


def _walk(root: str, names: _Names, skipped: Counter[SkipReason], rest: Rest) -> Iterator[ListedImage]:
    """The images in a folder, in the same order in every listing."""
    # An explicit stack: folders may be nested deeper than Python can recurse.
    opened = [(root, names)]
    while opened:
        folder, entries = opened[-1]
        name, is_folder = next(entries, (None, False))
        if name is None:
            opened.pop()
            continue
        path = os.path.join(folder, name)  # noqa: PTH118 - a plain path is the raw name
        if (rest.passes_folder if is_folder else rest.passes)(_uri(path)):
            continue
        reason = classify_folder(name) if is_folder else _hidden(name)
        if reason is not None:
            skipped[reason] += 1
        elif not is_folder:
            yield from _file(path, name, root, skipped, rest)
        else:
            try:
                opened.append((path, _names(path)))
            except OSError as error:
                if name != _LOST_AND_FOUND:
                    _raise_unless_absent(error, path)
                skipped[SkipReason.UNOPENED_FOLDER] += 1


def _hidden(name: str) -> SkipReason | None:
    kind = classify_path(name)
    return kind if kind in (SkipReason.HIDDEN, SkipReason.SYSTEM_FOLDER) else None


def _names(folder: str) -> _Names:
    """The names in a folder in byte order. Only the names are held, a few dozen bytes each."""
    folders: set[bytes] = set()
    ordered: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            ordered.append(os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                folders.add(ordered[-1])
    ordered.sort()
    return ((os.fsdecode(raw), raw in folders) for raw in ordered)


def _raise_unless_absent(error: OSError, path: str) -> None:
    """Raise PneumoniaError unless the error says that nothing is there.

    Images out of reach are not gone, so the listing must not continue without them. A link that leads to
    where reading is not permitted never was a listed image.
    """
    is_link = error.errno in NO_PERMISSION and os.path.islink(path)  # noqa: PTH114 - a plain path is the raw name
    if error.errno not in NO_SUCH_NAME and not is_link:
        raise PneumoniaError(
            f"{_uri(path)} cannot be listed ({error_text(error)}).", Remedy.FIX_OR_MOVE
        ) from error


def _uri(path: str) -> str:
    """The URI of a local path; bytes that are not UTF-8 are escaped."""
    return f"file://{as_text(os.fsencode(path))}"


def _file(path: str, name: str, root: str, skipped: Counter[SkipReason], rest: Rest) -> Iterator[ListedImage]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except OSError as error:
        _raise_unless_absent(error, path)
        skipped[SkipReason.BROKEN_LINK] += 1
        return
    if S_ISDIR(status.st_mode):
        # A link: what is in the archive itself is listed at its own path.
        inside = _is_inside(path, root)
        skipped[SkipReason.NO_REGULAR_FILE if inside else SkipReason.LINK_TO_FOLDER_ELSEWHERE] += 1
    elif not S_ISREG(status.st_mode):
        skipped[SkipReason.NO_REGULAR_FILE] += 1
    else:
        stored = local_file(path, status)
        kind = classify_path(name)
        if kind is NameClass.UNKNOWN:
            kind = classify_content(stored)
        yield from list_classified(stored, kind, skipped, rest.within(stored.uri))


def _is_inside(link: str, root: str) -> bool:
    """Whether a link leads into the archive."""
    real_root = os.path.realpath(root)
    return os.path.commonpath((os.path.realpath(link), real_root)) == real_root
