"""Members of a zip, and the bytes of one, inflated within bounds."""

import zlib
from collections import Counter
from collections.abc import Iterator

from pneumonia_core.archives.containers.tar_entries import LastRead
from pneumonia_core.archives.containers.zip_directories import LOCAL_MAGIC, find_directories
from pneumonia_core.archives.containers.zip_offsets import lost_wraps, records_in_parts, unwrapped
from pneumonia_core.archives.containers.zip_records import (
    DEFLATED,
    LOCAL_HEADER,
    LOCAL_SLACK,
    SIZES_FOLLOW,
    STORED,
    Record,
    records_before_cut,
    records_of_directory,
)
from pneumonia_core.archives.entries import (
    CUT_SHORT,
    ENCRYPTED,
    UNKNOWN_METHOD,
    Member,
    ReadAt,
    Refused,
    ZipEntry,
    tar_member_version,
)
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile


def zip_members(zipped: StoredFile, read_at: ReadAt, skipped: Counter[SkipReason]) -> Iterator[Member]:
    """The files of a zip, in the order of its directory."""
    for record in _records(read_at, zipped.size_bytes, skipped):
        if record.is_link:
            skipped[SkipReason.LINK_IN_ARCHIVE] += 1
        elif not record.is_folder:
            yield _member(record, zipped, read_at)


def _records(read_at: ReadAt, size: int, skipped: Counter[SkipReason]) -> Iterator[Record]:
    """The records of a zip of `size` bytes, in the order of its directory.

    A file may be joined of several zips, or of the parts of one. A zip without a directory was cut: its
    members are found by their local headers, up to the cut, and it is counted. A damaged directory is
    counted, and gives the records before the damage.
    """
    read_at = LastRead(read_at)
    directories, cut = find_directories(read_at, size)
    if cut or not directories:
        skipped[SkipReason.TRUNCATED_ARCHIVE] += 1
        yield from records_before_cut(read_at, cut)
    for directory in directories:
        records = records_of_directory(read_at, directory, skipped)
        if directory.disk:
            yield from records_in_parts(read_at, directory, records, skipped)
        elif directory.wraps:
            lost = lost_wraps(directory, records_of_directory(read_at, directory, Counter()))
            yield from unwrapped(read_at, records, lost)
        else:
            yield from records


def _member(record: Record, zipped: StoredFile, read_at: ReadAt) -> Member:
    return Member(
        name=record.name,
        version=_version(record, zipped),
        offset=record.offset,
        size_bytes=record.size_bytes,
        source=_source(record, zipped),
        head=lambda count: _head(record, read_at, count),
    )


def _source(record: Record, zipped: StoredFile) -> ZipEntry | Refused:
    if record.cut:
        return CUT_SHORT
    if record.encrypted:
        return ENCRYPTED
    if record.method not in (STORED, DEFLATED):
        return UNKNOWN_METHOD
    return ZipEntry(
        zipped.uri,
        record.offset,
        record.stored_bytes,
        record.size_bytes,
        record.crc32,
        is_deflated=record.method == DEFLATED,
    )


def _version(record: Record, zipped: StoredFile) -> str:
    """By the member's own checksum, so that changes to other members do not matter.

    A member that is cut does not yet have the content of its checksum.
    """
    if record.cut:
        return tar_member_version(zipped.version, record.offset)
    return f"{record.size_bytes}-{record.crc32:08x}"


def _head(record: Record, read_at: ReadAt, count: int) -> bytes | None:
    """The first `count` bytes of a member, or None where they cannot be known."""
    if record.encrypted or record.method not in (STORED, DEFLATED):
        return None
    wanted = min(record.stored_bytes, 2 * count)
    try:
        raw, _ = _stored_bytes(read_at, record.offset, wanted)
        if record.method == STORED:
            return raw[:count]
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, count)
    except (_NotThere, zlib.error):
        return None


def read_zip_member(entry: ZipEntry, read_at: ReadAt) -> bytes:
    """The bytes of a member.

    Raises RejectedImage where it is corrupt, larger than MAX_SOURCE_BYTES, or no longer at its offset, which
    says nothing about the member itself.
    """
    for size in (entry.stored_bytes, entry.size_bytes):
        if size > MAX_SOURCE_BYTES:
            raise RejectedImage("too_large", f"{size} bytes, the limit is {MAX_SOURCE_BYTES}")
    try:
        raw, header_crc32 = _stored_bytes(read_at, entry.offset, entry.stored_bytes)
        data = _inflate(raw, entry.size_bytes) if entry.is_deflated else raw
        if len(data) == entry.size_bytes and zlib.crc32(data) == entry.crc32:
            return data
        if header_crc32 not in (None, entry.crc32):
            raise _NotThere
    except _NotThere:
        raise RejectedImage(
            "unreadable", "it is not where the archive's directory says: rewritten since, or damaged"
        ) from None
    raise RejectedImage(
        "corrupt", f"the member is not the {entry.size_bytes} bytes that its checksum was made of"
    )


def _inflate(raw: bytes, size_bytes: int) -> bytes:
    """The inflated bytes, at most one more than a member should have; none where it cannot be inflated."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, size_bytes + 1)
    except zlib.error:
        return b""


class _NotThere(Exception):
    """The offset that the directory names has no member, another one, or only the beginning of one."""


def _stored_bytes(read_at: ReadAt, offset: int, count: int) -> tuple[bytes, int | None]:
    """`count` bytes after the local header, and that header's checksum: None where it follows the member.

    One read gets both where name and extra field are short. Raises _NotThere.
    """
    block = read_at(offset, LOCAL_HEADER.size + LOCAL_SLACK + count)
    if len(block) < LOCAL_HEADER.size or not block.startswith(LOCAL_MAGIC):
        raise _NotThere
    _, _, flags, _, _, _, crc32, _, _, name_length, extra_length = LOCAL_HEADER.unpack_from(block)
    head = LOCAL_HEADER.size + name_length + extra_length
    data = block[head : head + count]
    if len(data) < count:
        data += read_at(offset + head + len(data), count - len(data))
    if len(data) < count:
        raise _NotThere
    return data, None if flags & SIZES_FOLLOW else crc32
