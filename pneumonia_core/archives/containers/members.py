"""Tars and zips in an archive: the images in them, listed without unpacking, and the bytes of one."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from pneumonia_core.archives.classify import ARCHIVE_SUFFIXES, NameClass, classify_path
from pneumonia_core.archives.containers.compressed_tar import InflatingStream
from pneumonia_core.archives.containers.tar import CUT, ReadAt, read_tar_member, tar_members
from pneumonia_core.archives.containers.zip import (
    DEFLATED,
    STORED,
    ZipMember,
    member_head,
    read_zip_member,
    zip_members,
)
from pneumonia_core.archives.entries import (
    CUT_SHORT,
    ENCRYPTED,
    TAR,
    TAR_GZ,
    TAR_ZST,
    UNKNOWN_METHOD,
    ZIP_DEFLATED,
    ZIP_STORED,
    ListedImage,
    Member,
    tar_member_version,
)
from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.imaging.formats import SNIFFED_BYTES, is_image_head
from pneumonia_core.storage.ranges import StoredFile, Window, read_range
from pneumonia_core.system.hash_set import HashSet


def file_or_members(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    """A file that was named itself: an archive by its suffix, else an image, whatever its name."""
    is_archive = stored.uri.lower().endswith(ARCHIVE_SUFFIXES)
    yield from list_classified(stored, "archive" if is_archive else "image", skipped)


def list_classified(stored: StoredFile, verdict: NameClass, skipped: Counter[str]) -> Iterator[ListedImage]:
    """What a file gives to the listing by what it is: itself, its members, or no more than being counted."""
    if verdict == "image":
        yield ListedImage(stored.uri, stored.version, stored.size_bytes)
    elif verdict == "archive":
        yield from _list_members(stored, skipped)
    else:
        skipped[verdict] += 1


def _list_members(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    """The images in a tar or zip, in their order. Their names are only names; of a name that comes again the
    URI tells where it stands."""
    lower = stored.uri.lower()
    if lower.endswith(".zip"):
        listed = _zip(stored, skipped)
    elif lower.endswith(".tar"):
        listed = _tar(stored, TAR, Window(stored.uri), skipped)
    else:
        listed = _compressed_tar(stored, TAR_ZST if lower.endswith(".zst") else TAR_GZ, skipped)
    try:
        yield from _with_own_uris(listed)
    except RejectedImage as rejected:
        if rejected.stage == "decode":
            skipped[CUT] += 1
        elif rejected.reason == "not_found":
            skipped["archive that cannot be opened"] += 1
        else:
            remedy = "give us the right to read it, or move it out of the archive, and "
            raise PneumoniaError(
                f"{stored.uri} could not be listed to its end: {rejected.detail}. Nothing was committed; "
                f"{remedy if rejected.reason == 'forbidden' else ''}run the same command again."
            ) from rejected


def _with_own_uris(listed: Iterator[ListedImage]) -> Iterator[ListedImage]:
    seen = HashSet()
    numbers = itertools.count(1)
    for image in listed:
        if not seen.add(image.uri):
            assert image.member is not None
            uri = there = f"{image.uri}@{image.member.offset}"
            # A zip's directory may name one place any number of times.
            while not seen.add(uri):
                uri = f"{there}@{next(numbers)}"
            image = replace(image, uri=uri)
        yield image


def _compressed_tar(stored: StoredFile, method: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    with contextlib.closing(InflatingStream(stored.uri, method)) as stream:
        yield from _tar(stored, method, stream, skipped)


def _tar(stored: StoredFile, method: str, read_at: ReadAt, skipped: Counter[str]) -> Iterator[ListedImage]:
    for member in tar_members(read_at, skipped):
        verdict = classify_path(member.name)
        if verdict == "look inside":
            head = read_at(member.offset, min(SNIFFED_BYTES, member.size_bytes))
            verdict = "image" if is_image_head(head) else "no image"
        if verdict == "image":
            place = Member(
                stored.uri,
                method,
                member.offset,
                member.size_bytes,
                member.size_bytes,
                container_version=stored.version,
            )
            version = tar_member_version(stored.version, member.offset)
            yield ListedImage(f"{stored.uri}!/{member.name}", version, member.size_bytes, place)
        else:
            skipped["archive in an archive" if verdict == "archive" else verdict] += 1


def _zip(stored: StoredFile, skipped: Counter[str]) -> Iterator[ListedImage]:
    read_at = _read_at(stored.uri)
    for member in zip_members(read_at, stored.size_bytes, skipped):
        if member.name.endswith("/"):
            continue
        verdict = classify_path(member.name)
        if verdict == "look inside":
            verdict = _look_inside_zip(read_at, member)
        if verdict == "image":
            place = Member(
                stored.uri,
                _zip_method(member),
                member.offset,
                member.stored_bytes,
                member.size_bytes,
                member.crc32,
            )
            version = _zip_version(stored, member)
            yield ListedImage(f"{stored.uri}!/{member.name}", version, member.size_bytes, place)
        else:
            skipped["archive in an archive" if verdict == "archive" else verdict] += 1


def _look_inside_zip(read_at: ReadAt, member: ZipMember) -> NameClass:
    head = member_head(read_at, member, SNIFFED_BYTES)
    # Where that is not known, it becomes a row that says why.
    return "image" if head is None or is_image_head(head) else "no image"


def _zip_method(member: ZipMember) -> str:
    if member.cut:
        return CUT_SHORT
    if member.encrypted:
        return ENCRYPTED
    return {STORED: ZIP_STORED, DEFLATED: ZIP_DEFLATED}.get(member.method, UNKNOWN_METHOD)


def _zip_version(stored: StoredFile, member: ZipMember) -> str:
    """By the member's own checksum, so that it outlives all that happens to others. One that is cut has not yet the
    content that its checksum was made of."""
    if member.cut:
        return tar_member_version(stored.version, member.offset)
    return f"{member.size_bytes}-{member.crc32:08x}"


def read_member(member: Member) -> bytes:
    """The bytes of a tar's or a zip's member. Raises RejectedImage."""
    if member.method in (ZIP_STORED, ZIP_DEFLATED):
        assert member.crc32 is not None
        return read_zip_member(
            _read_at(member.container),
            member.offset,
            member.stored_bytes,
            member.size_bytes,
            member.crc32,
            member.method == ZIP_DEFLATED,
        )
    if member.method == TAR:
        read_at = _read_at(member.container, member.container_version)
        return read_tar_member(read_at, member.offset, member.size_bytes)
    with contextlib.closing(InflatingStream(member.container, member.method)) as stream:
        return stream.member(member)


def _read_at(uri: str, version: str | None = None) -> ReadAt:
    return lambda offset, count: read_range(uri, offset, count, version)
