"""Tars and zips in an archive: the images in them, listed without unpacking, and the bytes of one."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

from pneumonia_core.archives.classify import (
    FileClass,
    NameClass,
    classify_head,
    classify_named,
    classify_path,
)
from pneumonia_core.archives.containers.compressed_tar import InflatingStream
from pneumonia_core.archives.containers.tar import read_tar_member, tar_members
from pneumonia_core.archives.containers.zip import read_zip_member, zip_members
from pneumonia_core.archives.entries import (
    ListedImage,
    Member,
    ReadAt,
    TarEntry,
    WholeFile,
    ZipEntry,
)
from pneumonia_core.archives.packing.heads import Packing, packing_of
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import PneumoniaError, RejectedImage, Remedy
from pneumonia_core.imaging.formats import SNIFFED_BYTES, is_image_head
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.errors import COLD
from pneumonia_core.storage.ranges import Window, read_range
from pneumonia_core.system.hash_set import HashSet

_BY_SUFFIX: Final[dict[str, Packing]] = {
    ".zip": "zip",
    ".gz": "gz",
    ".tgz": "gz",
    ".zst": "zst",
    ".tzst": "zst",
    ".bz2": "bz2",
    ".tbz": "bz2",
    ".tbz2": "bz2",
    ".xz": "xz",
    ".txz": "xz",
}


def list_named(
    stored: StoredFile, skipped: Counter[SkipReason], after: str | None = None
) -> Iterator[ListedImage]:
    """The images of a file that a user names: a tar's or zip's members, else the file itself."""
    yield from list_classified(stored, classify_named(stored), skipped, after)


def list_classified(
    stored: StoredFile, kind: FileClass, skipped: Counter[SkipReason], after: str | None = None
) -> Iterator[ListedImage]:
    """The images of a file of a known kind: itself, its members, or none; then it is counted in `skipped`.

    Of the members only those that follow the one with the URI `after`, if there is one. Raises PneumoniaError
    where a tar or zip cannot be read to its end.
    """
    if isinstance(kind, SkipReason):
        skipped[kind] += 1
    elif kind is NameClass.ARCHIVE:
        counted_before = Counter(skipped)
        found = after is None
        for image in _list_members(stored, skipped):
            if found:
                yield image
            elif image.uri == after:
                found = True
                skipped.clear()
                skipped.update(counted_before)
        if not found:
            # The tar or zip has been written again without that member.
            yield from _list_members(stored, skipped)
    else:
        yield ListedImage(stored.uri, stored.version, stored.size_bytes, WholeFile())


def _list_members(stored: StoredFile, skipped: Counter[SkipReason]) -> Iterator[ListedImage]:
    """The images in a tar or zip, in their order; an image that is only called so is one itself."""
    try:
        packing = _packing(stored)
        if packing == "image":
            yield ListedImage(stored.uri, stored.version, stored.size_bytes, WholeFile())
        elif packing == "other":
            skipped[SkipReason.OTHER_COMPRESSION] += 1
        else:
            with _opened_members(stored, packing, skipped) as members:
                yield from _with_own_uris(stored.uri, _images(members, skipped))
    except RejectedImage as rejected:
        if rejected.reason == "unsupported":
            skipped[SkipReason.UNOPENED_ARCHIVE] += 1
        elif rejected.stage == "decode":
            skipped[SkipReason.TRUNCATED_ARCHIVE] += 1
        elif rejected.reason == "not_found":
            skipped[SkipReason.UNOPENED_ARCHIVE] += 1
        elif rejected.detail == COLD:
            skipped[SkipReason.COLD_ARCHIVE] += 1
        else:
            raise PneumoniaError(
                f"{stored.uri} could not be listed to its end: {rejected.detail}.",
                Remedy.ALLOW_READING if rejected.reason == "forbidden" else Remedy.RUN_AGAIN,
            ) from rejected


def _packing(stored: StoredFile) -> Packing | Literal["image"]:
    """How a tar or zip is packed: by its first bytes, else by its name. Raises RejectedImage."""
    head = read_range(stored.uri, 0, SNIFFED_BYTES)
    packing = packing_of(head)
    if packing is not None:
        return packing
    if is_image_head(head):
        return "image"
    lower = stored.uri.lower()
    return next((packing for suffix, packing in _BY_SUFFIX.items() if lower.endswith(suffix)), "tar")


@contextlib.contextmanager
def _opened_members(
    stored: StoredFile, packing: Packing, skipped: Counter[SkipReason]
) -> Iterator[Iterator[Member]]:
    """The files in a tar or zip, while it is open. Raises RejectedImage where it cannot be read."""
    if packing == "zip":
        yield zip_members(stored, _read_at(stored.uri), skipped)
    elif packing == "gz" or packing == "bz2" or packing == "xz" or packing == "zst":
        with contextlib.closing(InflatingStream(stored.uri, packing)) as stream:
            yield tar_members(stored, packing, stream, skipped)
    else:
        yield tar_members(stored, None, Window(stored.uri), skipped)


def _images(members: Iterator[Member], skipped: Counter[SkipReason]) -> Iterator[Member]:
    """The members that are images, and those that cannot be read to tell; the others are counted."""
    for member in members:
        kind = classify_path(member.name)
        if kind is NameClass.UNKNOWN:
            kind = classify_head(member.head(SNIFFED_BYTES), member.name)
        if isinstance(kind, SkipReason):
            skipped[kind] += 1
        elif kind is NameClass.ARCHIVE:
            skipped[SkipReason.NESTED_ARCHIVE] += 1
        else:
            yield member


def _with_own_uris(container: str, members: Iterator[Member]) -> Iterator[ListedImage]:
    """Each member under a URI of its own: a name that comes again is followed by the member's offset."""
    seen = HashSet()
    numbers = itertools.count(1)
    for member in members:
        uri = f"{container}!/{member.name}"
        if not seen.add(uri):
            uri = with_offset = f"{uri}@{member.offset}"
            # A zip's directory may name one offset any number of times.
            while not seen.add(uri):
                uri = f"{with_offset}@{next(numbers)}"
        yield ListedImage(uri, member.version, member.size_bytes, member.source)


def read_member(entry: TarEntry | ZipEntry) -> bytes:
    """The bytes of a tar's or zip's member. Raises RejectedImage."""
    if isinstance(entry, ZipEntry):
        return read_zip_member(entry, _read_at(entry.file))
    if entry.compression is None:
        return read_tar_member(_read_at(entry.file, entry.tar_version), entry.offset, entry.size_bytes)
    with contextlib.closing(InflatingStream(entry.file, entry.compression)) as stream:
        return stream.member(entry)


def _read_at(uri: str, version: str | None = None) -> ReadAt:
    return lambda offset, count: read_range(uri, offset, count, version)
