"""The images under a prefix of a bucket, or in one object."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pneumonia_core.archives.classify import NameClass, classify_content, classify_path
from pneumonia_core.archives.containers.members import list_classified, list_named
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.archives.position import WHOLE, Rest
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.files import is_folder
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.patience import heed, heeded
from pneumonia_core.storage.ranges import stat_file

_SNIFFING_THREADS: Final = 16


def list_bucket(
    location: Location, skipped: Counter[SkipReason], rest: Rest = WHOLE
) -> Iterator[ListedImage]:
    """The images under a prefix; of an object, itself or its members. Only those of the `rest`.

    Raises PneumoniaError where the storage fails.
    """
    named = named_object(location)
    if named is None:
        yield from _list_prefix(location, skipped, rest)
    elif not rest.passes(named.uri):
        yield from list_named(named, skipped, rest.within(named.uri))


def named_object(location: Location) -> StoredFile | None:
    """The object of exactly this name; None for a prefix.

    Consoles and file systems over buckets write an object of 0 bytes for a folder: it hides no prefix.
    """
    if "/" not in location.path:
        return None
    try:
        found = stat_file(location.uri)
        return None if not found.size_bytes and _is_listable(location) else found
    except RejectedImage as rejected:
        # Permission to list a folder is enough: S3 then answers 403 for the key of the folder itself.
        listable = rejected.reason == "forbidden" and location.is_s3 and _is_listable(location)
        if rejected.reason != "not_found" and not listable:
            raise PneumoniaError(f"{location.uri} cannot be listed: {rejected.detail}.") from rejected
        return None


def _is_listable(folder: Location) -> bool:
    """Whether a bucket lists any key under a folder, also where it gives no object."""
    try:
        return is_folder(folder)
    except InvalidInput:
        return False


def _list_prefix(location: Location, skipped: Counter[SkipReason], rest: Rest) -> Iterator[ListedImage]:
    prefix = f"{location.uri}/"
    with ThreadPoolExecutor(_SNIFFING_THREADS, "sniff", heed, (heeded(),)) as pool:
        for page in location.bucket.list_files(location.uri, rest.start):
            page = [stored for stored in page if not rest.passes(stored.uri)]
            kinds = [classify_path(stored.uri.removeprefix(prefix)) for stored in page]
            unknown = (s for s, kind in zip(page, kinds, strict=True) if kind is NameClass.UNKNOWN)
            by_content = pool.map(classify_content, unknown)
            for stored, kind in zip(page, kinds, strict=True):
                known = next(by_content) if kind is NameClass.UNKNOWN else kind
                yield from list_classified(stored, known, skipped, rest.within(stored.uri))
