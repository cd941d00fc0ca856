"""What a zip says of its members: its central directory, or the local headers where the zip is cut.

Records are read in pieces; Python's zipfile holds all of them at once, and refuses a zip that is cut.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pneumonia_core.archives.entries import ReadAt
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, as_text

STORED: Final = 0
DEFLATED: Final = 8
_ENCRYPTED: Final = 0x1
SIZES_FOLLOW: Final = 0x8
_UTF8: Final = 0x800
# Layouts of APPNOTE.TXT 6.3: local header, central header, end, zip64 end and its locator.
LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s4B4HL2L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT: Final = 65_535
_MAX_DESCRIPTOR: Final = 24
_PIECE: Final = 2**20
# An inventory does not hold all 64 bits of a zip64 field, and no file is larger than this.
_LARGEST: Final = 2**62
# So much of a local header is read with the member: its extra field may be longer than that of the central
# header.
LOCAL_SLACK: Final = 512


@dataclass(frozen=True)
class Record:
    """What the directory or a local header says of a member.

    `offset` is that of its local header; a member that is `cut` reaches beyond the end of the zip.
    """

    name: str
    offset: int
    stored_bytes: int
    size_bytes: int
    crc32: int
    method: int
    encrypted: bool
    cut: bool = False


def zip_records(read_at: ReadAt, size: int, skipped: Counter[SkipReason]) -> Iterator[Record]:
    """The records of a zip of `size` bytes, in the order of its directory.

    A zip without a directory was cut: its members are found by their local headers, up to the cut, and it is
    counted. A damaged directory is counted, and gives the records before the damage.
    """
    directory = _find_directory(read_at, size)
    if directory is None:
        skipped[SkipReason.TRUNCATED_ARCHIVE] += 1
        yield from _from_local_headers(read_at, size)
    else:
        yield from _from_directory(read_at, *directory, skipped)


def _find_directory(read_at: ReadAt, size: int) -> tuple[int, int, int] | None:
    """Start and end of the central directory, and by how much bytes before the zip shift all its offsets;
    None without a directory."""
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
) -> Iterator[Record]:
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
        yield Record(
            _name(name, flags), header + shift, stored, inflated, crc, method, bool(flags & _ENCRYPTED)
        )


def _from_local_headers(read_at: ReadAt, size: int) -> Iterator[Record]:
    """The members up to the cut.

    A member that was written before its size was known has the size after its data: it is inflated to find
    its end.
    """
    offset = 0
    while offset + LOCAL_HEADER.size <= size:
        block = read_at(offset, LOCAL_HEADER.size + LOCAL_SLACK)
        if len(block) < LOCAL_HEADER.size or not block.startswith(b"PK\x03\x04"):
            return
        _, _, flags, method, _, _, crc, stored, inflated, name_length, extra_length = (
            LOCAL_HEADER.unpack_from(block)
        )
        head = LOCAL_HEADER.size + name_length + extra_length
        if len(block) < head:
            block = read_at(offset, head)
        if len(block) < head:
            return
        name = block[LOCAL_HEADER.size : LOCAL_HEADER.size + name_length]
        inflated, stored, _ = _large(block[LOCAL_HEADER.size + name_length : head], inflated, stored, 0)
        if flags & SIZES_FOLLOW:
            found = _by_inflating(read_at, offset + head) if method == DEFLATED else None
            if found is None or flags & _ENCRYPTED:
                return
            crc, stored, inflated = found
            head += _descriptor_bytes(read_at(offset + head + stored, _MAX_DESCRIPTOR + 4))
        if max(inflated, stored) > _LARGEST:
            return
        end = offset + head + stored
        encrypted = bool(flags & _ENCRYPTED)
        yield Record(_name(name, flags), offset, stored, inflated, crc, method, encrypted, end > size)
        offset = end


def _by_inflating(read_at: ReadAt, start: int) -> tuple[int, int, int] | None:
    """Checksum, stored and inflated bytes of a deflated member that begins at `start`.

    None where it is cut, corrupt, or larger than MAX_SOURCE_BYTES.
    """
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
    """Length of the checksum and sizes after a member: with or without a signature, sizes of four or eight
    bytes."""
    for length in (16, 24, 12, 20):
        if block[length : length + 4] == b"PK\x03\x04":
            return length
    return _MAX_DESCRIPTOR


def _large(extra: bytes, inflated: int, stored: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset; those that do not fit 32 bits come from the zip64 extra field."""
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
