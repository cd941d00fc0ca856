"""A folder on this machine: the images in it, depth first, names in byte order."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from stat import S_ISDIR, S_ISREG
from typing import Final

from pneumonia_core.archives.classify import classify_name, looks_like_image
from pneumonia_core.archives.containers.members import file_or_members, list_classified
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import as_text
from pneumonia_core.storage.ranges import StoredFile, local_file

# Of a name: there is nothing. Any other error is the disk's, or there may be images that we must not read.
ABSENT: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO))
DENIED: Final = frozenset((errno.EACCES, errno.EPERM))
# Every disk has one at its root, for the administrator alone.
_LOST_AND_FOUND: Final = "lost+found"
# What is in a folder: each name, and whether it is a folder itself.
_Names = Iterator[tuple[str, bool]]


def opens_locally(path: str) -> bool:
    """Whether there is a file or folder. Raises OSError where it is not one that we may read."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except (FileNotFoundError, NotADirectoryError):
        return False
    if S_ISDIR(status.st_mode):
        os.scandir(path).close()
    else:
        # A FIFO would be waited for.
        if not S_ISREG(status.st_mode):
            raise OSError("no regular file")
        open(path, "rb").close()  # noqa: PTH123
    return True


def list_local(root: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    """The images in a folder, or in the file that was named itself. Raises PneumoniaError where the disk fails."""
    try:
        status = os.stat(root)  # noqa: PTH116 - a plain path is the raw name
        opened = _entries(root) if S_ISDIR(status.st_mode) else local_file(root, status)
    except (OSError, RejectedImage) as error:
        why = error.detail if isinstance(error, RejectedImage) else error_text(error)
        raise PneumoniaError(
            f"file://{root}: the archive cannot be opened ({why}). Mend it and run the same command again."
        ) from error
    if isinstance(opened, StoredFile):
        yield from file_or_members(opened, skipped)
    else:
        yield from _walk(root, opened, skipped)


def _walk(root: str, names: _Names, skipped: Counter[str]) -> Iterator[ListedImage]:
    """Depth first, names in byte order, so that every listing of the same folder has the same order."""
    # A stack of our own: folders may lie deeper in each other than Python calls.
    opened = [(root, names)]
    while opened:
        folder, entries = opened[-1]
        name, is_folder = next(entries, (None, False))
        if name is None:
            opened.pop()
            continue
        path = os.path.join(folder, name)  # noqa: PTH118 - the raw name
        if classify_name(name) == "hidden":
            skipped["hidden"] += 1
        elif not is_folder:
            yield from _file(path, name, root, skipped)
        else:
            try:
                opened.append((path, _entries(path)))
            except OSError as error:
                if name != _LOST_AND_FOUND:
                    _raise_unless_absent(error, path)
                skipped["folder that cannot be opened"] += 1


def _entries(folder: str) -> _Names:
    """The names in a folder in byte order, and which are folders. Of them only the names are held, in a few dozen bytes
    each."""
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
    """Images that are out of reach are not gone: the listing must not go on without them. A link is no image that we
    knew before it led to where we may not look."""
    is_link = error.errno in DENIED and os.path.islink(path)  # noqa: PTH114 - a plain path is the raw name
    if error.errno not in ABSENT and not is_link:
        raise PneumoniaError(
            f"{_shown(path)} cannot be listed ({error_text(error)}). Mend it, or move it out of the archive, and run "
            "the same command again."
        ) from error


def _shown(path: str) -> str:
    """The URI of a local path, whose name may be no UTF-8."""
    return f"file://{as_text(os.fsencode(path))}"


def _file(path: str, name: str, root: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    try:
        status = os.stat(path)  # noqa: PTH116 - a plain path is the raw name
    except OSError as error:
        _raise_unless_absent(error, path)
        skipped["broken link"] += 1
        return
    if S_ISDIR(status.st_mode):
        skipped["no regular file" if _is_beneath(path, root) else "link to a folder elsewhere"] += 1
        return
    if not S_ISREG(status.st_mode):
        skipped["no regular file"] += 1
        return
    verdict = classify_name(name)
    stored = local_file(path, status)
    if verdict == "look inside":
        verdict = "image" if looks_like_image(stored) else "no image"
    yield from list_classified(stored, verdict, skipped)


def _is_beneath(link: str, root: str) -> bool:
    """Whether a link leads into the archive itself, whose images are listed where they are."""
    real_root = os.path.realpath(root)
    return os.path.commonpath((os.path.realpath(link), real_root)) == real_root
