"""A prefix in a bucket, its folder: whether there is one, and the images beneath it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow.fs as pafs

from pneumonia_core.archives.classify import NameClass, classify_content, classify_path
from pneumonia_core.archives.containers.members import list_classified, list_named
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage import s3_objects
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.ranges import StoredFile, stat_file

_SNIFFING_THREADS: Final = 16


def exists_remotely(place: Location) -> bool:
    """Whether there is an object, or any beneath it. Raises PneumoniaError or OSError where that cannot be told."""
    if not place.is_s3:
        return bool(place.fs.get_file_info(place.path).type != pafs.FileType.NotFound)
    if "/" in place.path:
        try:
            s3_objects.head(place.uri)
            return True
        except RejectedImage as rejected:
            if rejected.reason == "forbidden":
                if _is_listable(place.uri):
                    return True
                raise InvalidInput(
                    f"{place.uri}: the archive cannot be opened ({rejected.detail})."
                ) from rejected
            if rejected.reason != "not_found":
                raise PneumoniaError(
                    f"{place.uri}: the archive cannot be opened ({rejected.detail}). Run the same command again when it "
                    "answers."
                ) from rejected
    return any(s3_objects.list_pages(_prefix(place.uri)))


def _is_listable(uri: str) -> bool:
    """Whether there is a folder in S3, of which we may be allowed to list what is in it and nothing else."""
    try:
        return any(s3_objects.list_pages(_prefix(uri)))
    except InvalidInput:
        return False


def _prefix(uri: str) -> str:
    """What all keys beneath a folder of a bucket begin with."""
    return f"{uri}/"


def list_bucket(place: Location, skipped: Counter[SkipReason]) -> Iterator[ListedImage]:
    """The images beneath a prefix, or in the object that was named itself. Raises PneumoniaError where the storage
    fails."""
    named = _named_itself(place)
    if named is not None:
        yield from list_named(named, skipped)
    else:
        yield from _list_prefix(place, skipped)


def _named_itself(place: Location) -> StoredFile | None:
    """The object of just this name, None for what is a prefix."""
    if "/" not in place.path:
        return None
    try:
        return stat_file(place.uri)
    except RejectedImage as rejected:
        listable = rejected.reason == "forbidden" and place.is_s3 and _is_listable(place.uri)
        if rejected.reason != "not_found" and not listable:
            raise PneumoniaError(f"{place.uri} cannot be listed: {rejected.detail}.") from rejected
        return None


def _list_prefix(place: Location, skipped: Counter[SkipReason]) -> Iterator[ListedImage]:
    prefix = _prefix(place.uri)
    pages = _s3_pages(place.uri) if place.is_s3 else _other_pages(place)
    with ThreadPoolExecutor(_SNIFFING_THREADS, thread_name_prefix="sniff") as pool:
        for page in pages:
            kinds = [classify_path(stored.uri.removeprefix(prefix)) for stored in page]
            unknown = (s for s, kind in zip(page, kinds, strict=True) if kind is NameClass.UNKNOWN)
            by_content = pool.map(classify_content, unknown)
            for stored, kind in zip(page, kinds, strict=True):
                known = next(by_content) if kind is NameClass.UNKNOWN else kind
                yield from list_classified(stored, known, skipped)


def _s3_pages(uri: str) -> Iterator[list[StoredFile]]:
    for page in s3_objects.list_pages(_prefix(uri)):
        # A key that ends in a slash stands for a folder.
        files = (found for found in page if not found.uri.endswith("/"))
        yield [StoredFile(found.uri, found.size_bytes, found.version) for found in files]


def _other_pages(folder: Location) -> Iterator[list[StoredFile]]:
    """The files of each folder, depth first: pyarrow holds one folder's entries at a time. Of Google's it holds all: it
    does not tell which folders there are, only what is in them at any depth."""
    scheme = folder.uri.partition("://")[0]
    at_once = scheme == "gs"
    folders = [folder.path]
    while folders:
        path = folders.pop()
        try:
            found = folder.fs.get_file_info(pafs.FileSelector(path, recursive=at_once))
        except OSError as error:
            raise PneumoniaError(f"{scheme}://{path} cannot be listed ({error_text(error)}).") from error
        found.sort(key=lambda info: info.path)
        yield [
            StoredFile(f"{scheme}://{info.path}", info.size, f"{info.size}-{info.mtime_ns}")
            for info in found
            if info.is_file
        ]
        if not at_once:
            folders += [info.path for info in reversed(found) if info.type == pafs.FileType.Directory]
