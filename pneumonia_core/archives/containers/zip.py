"""Members of a zip, from its central directory, read in pieces; and one member's bytes, inflated within bounds.

Python's zipfile holds every member's record at once and refuses a zip that was cut.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

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
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile, as_text

STORED: Final = 0
DEFLATED: Final = 8
_ENCRYPTED: Final = 0x1
_SIZES_FOLLOW: Final = 0x8
_UTF8: Final = 0x800
# Layouts of APPNOTE.TXT 6.3: local header, central header, end, zip64 end and its locator.
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s4B4HL2L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT: Final = 65_535
_MAX_DESCRIPTOR: Final = 24
_PIECE: Final = 2**20
# What a zip64 field may say, its 64 bits, no inventory holds; nor is there a file of that size.
_LARGEST: Final = 2**62
# Of the local header, whose extra field may be longer than the central one's, this much is read with the member.
_LOCAL_SLACK: Final = 512


@dataclass(frozen=True)
class _Record:
    """What a zip's directory or a local header says of a member; `offset` is that of its local header. One that is
    `cut` reaches beyond the end of the zip."""

    name: str
    offset: int
    stored_bytes: int
    size_bytes: int
    crc32: int
    method: int
    encrypted: bool
    cut: bool = False


def zip_members(zipped: StoredFile, read_at: ReadAt, skipped: Counter[SkipReason]) -> Iterator[Member]:
    """The files of a zip in the order of its directory. A zip without a directory was cut: its members are found by
    their local headers, up to the cut, and it is counted."""
    directory = _find_directory(read_at, zipped.size_bytes)
    if directory is None:
        skipped[SkipReason.TRUNCATED_ARCHIVE] += 1
        records = _from_local_headers(read_at, zipped.size_bytes)
    else:
        records = _from_directory(read_at, *directory, skipped)
    return (_member(record, zipped, read_at) for record in records if not record.name.endswith("/"))


def _member(record: _Record, zipped: StoredFile, read_at: ReadAt) -> Member:
    return Member(
        name=record.name,
        version=_version(record, zipped),
        offset=record.offset,
        size_bytes=record.size_bytes,
        source=_source(record, zipped),
        head=lambda count: _head(record, read_at, count),
    )


def _source(record: _Record, zipped: StoredFile) -> ZipEntry | Refused:
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


def _version(record: _Record, zipped: StoredFile) -> str:
    """By the member's own checksum, so that changes to other members do not matter. A member that is cut does not yet
    have the content of its checksum."""
    if record.cut:
        return tar_member_version(zipped.version, record.offset)
    return f"{record.size_bytes}-{record.crc32:08x}"


def _find_directory(read_at: ReadAt, size: int) -> tuple[int, int, int] | None:
    """Start and end of the central directory, and how far all its offsets are shifted by what stands before
    the zip; None where there is no such directory."""
    start = max(0, size - _END.size - _MAX_COMMENT)
    tail = read_at(start, size - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + _END.size:
        return None
    *_, length, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    locator_at = end - _LOCATOR.size
    locator = read_at(locator_at, _LOCATOR.size) if locator_at >= 0 else b""
    if len(locator) == _LOCATOR.size and locator.startswith(b"PK\x06\x07"):
        end64 = _LOCATOR.unpack(locator)[2]
        record = read_at(end64, _END64.size) if end64 < size else b""
        if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
            return None
        *_, length, offset = _END64.unpack(record)
        end = end64
    shift = end - length - offset
    return (end - length, end, shift) if shift >= 0 and length <= end else None


def _from_directory(
    read_at: ReadAt, start: int, end: int, shift: int, skipped: Counter[SkipReason]
) -> Iterator[_Record]:
    piece, at = b"", 0
    while start + at + _CENTRAL.size <= end:
        if len(piece) - at < _CENTRAL.size + 3 * _MAX_COMMENT and start + len(piece) < end:
            start, at = start + at, 0
            piece = read_at(start, min(_PIECE, end - start))
        if len(piece) - at < _CENTRAL.size or piece[at : at + 4] != b"PK\x01\x02":
            skipped[SkipReason.DAMAGED_ARCHIVE] += 1
            return
        fields = _CENTRAL.unpack_from(piece, at)
        flags, method, crc, stored, inflated = fields[5], fields[6], fields[9], fields[10], fields[11]
        name_length, extra_length, comment_length, header = fields[12], fields[13], fields[14], fields[18]
        at += _CENTRAL.size
        name = piece[at : at + name_length]
        extra = piece[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        inflated, stored, header = _large(extra, inflated, stored, header)
        if max(inflated, stored, header) > _LARGEST:
            skipped[SkipReason.DAMAGED_ARCHIVE] += 1
            return
        yield _Record(
            _name(name, flags), header + shift, stored, inflated, crc, method, bool(flags & _ENCRYPTED)
        )


def _from_local_headers(read_at: ReadAt, size: int) -> Iterator[_Record]:
    """Until the cut. Where a member that was written without knowing its size ends, is told behind it: it is inflated."""
    offset = 0
    while offset + _LOCAL.size <= size:
        block = read_at(offset, _LOCAL.size + _LOCAL_SLACK)
        if len(block) < _LOCAL.size or not block.startswith(b"PK\x03\x04"):
            return
        _, _, flags, method, _, _, crc, stored, inflated, name_length, extra_length = _LOCAL.unpack_from(
            block
        )
        head = _LOCAL.size + name_length + extra_length
        if len(block) < head:
            block = read_at(offset, head)
        if len(block) < head:
            return
        name = block[_LOCAL.size : _LOCAL.size + name_length]
        inflated, stored, _ = _large(block[_LOCAL.size + name_length : head], inflated, stored, 0)
        if flags & _SIZES_FOLLOW:
            found = _by_inflating(read_at, offset + head) if method == DEFLATED else None
            if found is None or flags & _ENCRYPTED:
                return
            crc, stored, inflated = found
            head += _descriptor_bytes(read_at(offset + head + stored, _MAX_DESCRIPTOR + 4))
        if max(inflated, stored) > _LARGEST:
            return
        end = offset + head + stored
        encrypted = bool(flags & _ENCRYPTED)
        yield _Record(_name(name, flags), offset, stored, inflated, crc, method, encrypted, end > size)
        offset = end


def _by_inflating(read_at: ReadAt, start: int) -> tuple[int, int, int] | None:
    """Checksum, stored and inflated bytes of a deflated member that begins at `start`; None where it is cut or corrupt,
    or larger than any image."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    at, crc, inflated = start, 0, 0
    while not inflater.eof:
        piece = inflater.unconsumed_tail
        if not piece:
            piece = read_at(at, _PIECE)
            at += len(piece)
        try:
            data = inflater.decompress(piece, _PIECE)
        except zlib.error:
            return None
        crc, inflated = zlib.crc32(data, crc), inflated + len(data)
        if not (piece or data) or inflated > MAX_SOURCE_BYTES:
            return None
    return crc, at - len(inflater.unused_data) - start, inflated


def _descriptor_bytes(block: bytes) -> int:
    """The bytes of checksum and sizes behind a member: with or without a signature, sizes of four or of eight bytes."""
    for length in (16, 24, 12, 20):
        if block[length : length + 4] == b"PK\x03\x04":
            return length
    return _MAX_DESCRIPTOR


def _large(extra: bytes, inflated: int, stored: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset, those that do not fit 32 bits from the zip64 extra field."""
    values = [inflated, stored, header]
    if 0xFFFFFFFF not in values:
        return inflated, stored, header
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            for number, value in enumerate(values):
                if value == 0xFFFFFFFF and len(field) >= 8:
                    values[number] = int.from_bytes(field[:8], "little")
                    field = field[8:]
            break
        at += 4 + length
    return values[0], values[1], values[2]


def _name(name: bytes, flags: int) -> str:
    if flags & _UTF8:
        return as_text(name)
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def _head(record: _Record, read_at: ReadAt, count: int) -> bytes | None:
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
    """The bytes of a member. Raises RejectedImage: it may be corrupt, or larger than any image, or no longer there,
    which says nothing of the member itself."""
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
    """At most one byte more than a member should have, none where it cannot be inflated."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, size_bytes + 1)
    except zlib.error:
        return b""


class _NotThere(Exception):
    """At the place that the directory names stands no member, another one, or only its beginning."""


def _stored_bytes(read_at: ReadAt, offset: int, count: int) -> tuple[bytes, int | None]:
    """What stands behind the local header, in one reading where its name and extra field are short; and the header's
    own checksum, None where it follows the member. Raises _NotThere."""
    block = read_at(offset, _LOCAL.size + _LOCAL_SLACK + count)
    if len(block) < _LOCAL.size or not block.startswith(b"PK\x03\x04"):
        raise _NotThere
    _, _, flags, _, _, _, crc32, _, _, name_length, extra_length = _LOCAL.unpack_from(block)
    head = _LOCAL.size + name_length + extra_length
    data = block[head : head + count]
    if len(data) < count:
        data += read_at(offset + head + len(data), count - len(data))
    if len(data) < count:
        raise _NotThere
    return data, None if flags & _SIZES_FOLLOW else crc32
