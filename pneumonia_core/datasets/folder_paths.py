"""The paths of the files of a data set that is a folder, on a disk or in a bucket."""

import os
from collections.abc import Iterator

from pneumonia_core.archives.classify import NameClass, classify_name, classify_path
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location


def file_paths(folder: Location) -> Iterator[str]:
    """The paths of all files beneath a folder that are not hidden."""
    if folder.is_local:
        yield from _local_paths(folder.path, "", frozenset())
        return
    start = f"{folder.uri.rstrip('/')}/"
    for page in folder.bucket.list_files(folder.uri):
        paths = (stored.uri.removeprefix(start) for stored in page)
        yield from (path for path in paths if classify_path(path) is not SkipReason.HIDDEN)


def _local_paths(root: str, beneath: str, above: frozenset[str]) -> Iterator[str]:
    """The paths in `root/beneath`; links are followed, but not into a folder `above`."""
    folder = f"{root}/{beneath}".rstrip("/")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        real = os.path.realpath(folder)
        inner = {entry.name for entry in entries if _is_folder(entry)}
    except OSError as error:
        raise InvalidInput(
            f"file://{folder}: this folder of images cannot be read ({error_text(error)}). Fix that, or move "
            "it away: without it a class would be missing."
        ) from error
    for name in (entry.name for entry in entries):
        path = f"{beneath}/{name}" if beneath else name
        if classify_name(name) is SkipReason.HIDDEN:
            continue
        if not _is_utf8(name):
            raise InvalidInput(f"file://{folder}: the name of a file in it is not UTF-8. Rename that file.")
        if name not in inner:
            yield path
        elif real not in above:
            yield from _local_paths(root, path, above | {real})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. Raises OSError for a link that may have led to one."""
    if entry.is_symlink() and classify_name(entry.name) is NameClass.UNKNOWN:
        entry.stat()
    return entry.is_dir()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
