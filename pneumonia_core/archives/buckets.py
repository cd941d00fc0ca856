"""A prefix in a bucket, its folder: whether there is one, and the images beneath it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pneumonia_core.archives.classify import NameClass, classify_content, classify_path
from pneumonia_core.archives.containers.members import list_classified, list_named
from pneumonia_core.archives.entries import ListedImage
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage.files import is_folder
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.ranges import StoredFile, stat_file

_SNIFFING_THREADS: Final = 16


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
        # Permission to list a folder is enough: S3 then answers 403 for the key of the folder itself.
        listable = rejected.reason == "forbidden" and place.is_s3 and _is_listable(place)
        if rejected.reason != "not_found" and not listable:
            raise PneumoniaError(f"{place.uri} cannot be listed: {rejected.detail}.") from rejected
        return None


def _is_listable(folder: Location) -> bool:
    try:
        return is_folder(folder)
    except InvalidInput:
        return False


def _list_prefix(place: Location, skipped: Counter[SkipReason]) -> Iterator[ListedImage]:
    prefix = f"{place.uri}/"
    with ThreadPoolExecutor(_SNIFFING_THREADS, thread_name_prefix="sniff") as pool:
        for page in place.bucket.list_files(place.uri):
            kinds = [classify_path(stored.uri.removeprefix(prefix)) for stored in page]
            unknown = (s for s, kind in zip(page, kinds, strict=True) if kind is NameClass.UNKNOWN)
            by_content = pool.map(classify_content, unknown)
            for stored, kind in zip(page, kinds, strict=True):
                known = next(by_content) if kind is NameClass.UNKNOWN else kind
                yield from list_classified(stored, known, skipped)
