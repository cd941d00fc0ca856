"""Some files of an archive, found in it now: to see whether its storage still gives anything."""

import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from pneumonia_core.archives.classify import classify_folder, classify_path
from pneumonia_core.archives.entries import ImageRef, TarEntry, ZipEntry
from pneumonia_core.archives.manifests import is_manifest
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.backend import as_text
from pneumonia_core.storage.location import Location

_MAX_ENTRIES: Final = 2000
_MAX_SECONDS: Final = 10.0
_MAX_FOLDERS: Final = 3
# A file system is mounted at most so deep, as at /mnt/pacs.
_MOUNT_DEPTH: Final = 2


def storage_of(archive: str, file: str) -> str:
    """The URI under which whatever a machine lacks, it lacks as a whole: the archive, in one piece.

    The images of a manifest may be anywhere: there it is the bucket, or a folder near the root.
    """
    if not is_manifest(archive):
        return archive
    scheme, _, path = file.partition("://")
    if scheme != "file":
        return f"{scheme}://{path.partition('/')[0]}"
    folders = path.split("/")[1:-1]
    return "/".join(["file:/", "", *folders[:_MOUNT_DEPTH]])


def sample_files(archive: str, storage: str, missing: Iterable[ImageRef]) -> Iterator[str]:
    """URIs of files that an archive has now in a part of its storage, a few; none where it is gone.

    `missing` are images of it that cannot be read. Raises PneumoniaError where a bucket fails.
    """
    if not is_manifest(archive):
        yield from _files_in(archive)
        return
    missing = list(missing)
    containers = (ref.source.file for ref in missing if isinstance(ref.source, TarEntry | ZipEntry))
    yield from islice(dict.fromkeys(containers), _MAX_FOLDERS)
    near = dict.fromkeys(Location(ref.file).parent.uri for ref in missing if ref.file)
    for folder in [*islice(near, _MAX_FOLDERS), *{Location(uri).parent.uri for uri in islice(near, 1)}]:
        if folder.startswith(storage):
            yield from _files_in(folder)


def _files_in(root: str) -> Iterator[str]:
    """Files at any depth in a folder that may be images or hold them; a file itself."""
    location = Location(root)
    return _local_files(location.path) if location.is_local else _objects(location)


def _objects(location: Location) -> Iterator[str]:
    prefix = f"{location.uri.rstrip('/')}/"
    try:
        page = next(location.bucket.list_files(location.uri), [])
    except InvalidInput:
        # There is no such bucket any more, or this user may no longer list it.
        page = []
    for stored in page:
        if not isinstance(classify_path(stored.uri.removeprefix(prefix)), SkipReason):
            yield stored.uri
    if "/" in location.path:
        yield location.uri


def _local_files(root: str) -> Iterator[str]:
    if os.path.isfile(root):  # noqa: PTH113 - a plain path is the raw name
        yield _uri(root)
        return
    seen, until = 0, time.monotonic() + _MAX_SECONDS
    folders = [root]
    while folders and seen < _MAX_ENTRIES and time.monotonic() < until:
        for entry in _entries(folders.pop()):
            seen += 1
            if entry.is_dir(follow_symlinks=False):
                if classify_folder(entry.name) is None:
                    folders.append(entry.path)
            elif not isinstance(classify_path(entry.name), SkipReason) and entry.is_file():
                yield _uri(entry.path)


def _entries(folder: str) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, _MAX_ENTRIES))
    except OSError:
        # What cannot be listed cannot be a witness.
        return []


def _uri(path: str) -> str:
    return f"file://{as_text(os.fsencode(path))}"
