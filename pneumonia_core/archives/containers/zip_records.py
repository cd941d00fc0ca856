"""What a zip says of its members: its central directory, or the local headers where the zip is cut.

Records are read in pieces; Python's zipfile holds all of them at once, and refuses a zip that is cut.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from stat import S_ISLNK
from typing import Final

from pneumonia_core.archives.containers.zip_directories import (
    CENTRAL_MAGIC,
    LOCAL_MAGIC,
    Directory,
    first_member,
)
from pneumonia_core.archives.entries import ReadAt
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, as_text

STORED: Final = 0
DEFLATED: Final = 8
_ENCRYPTED: Final = 0x1
SIZES_FOLLOW: Final = 0x8
_UTF8: Final = 0x800
_UNICODE_PATH: Final = 0x7075
_ZIP64: Final = 1
_UNIX_AND_MACOS: Final = (3, 19)
_DOS_FOLDER: Final = 0x10
# Layouts of APPNOTE.TXT 6.3: local header, central header.
LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s4B4HL2L5H2L")
_MAX_FIELD: Final = 65_535
MAX_DESCRIPTOR: Final = 24
_PIECE: Final = 2**20
# An inventory does not hold all 64 bits of a zip64 field, and no file is larger than this.
_LARGEST: Final = 2**62
# So much of a local header is read with the member: its extra field may be longer than that of the central
# header.
LOCAL_SLACK: Final = 512


@dataclass(frozen=True)
class Record:
    """What the directory or a local header says of a member.

    `offset` is that of its local header; a member that is `cut` reaches beyond the end of the zip. `disk` is
    the number of the part of the zip in which it begins.
    """

    name: str
    offset: int
    stored_bytes: int
    size_bytes: int
    crc32: int
    method: int
    encrypted: bool
    cut: bool = False
    disk: int = 0
    is_folder: bool = False
    is_link: bool = False


def records_of_directory(
    read_at: ReadAt, directory: Directory, skipped: Counter[SkipReason]
) -> Iterator[Record]:
    start, end = directory.start, directory.end
    piece, at = b"", 0
    while start + at + _CENTRAL.size <= end:
        if len(piece) - at < _CENTRAL.size + 3 * _MAX_FIELD and start + len(piece) < end:
            start, at = start + at, 0
            piece = read_at(start, min(_PIECE, end - start))
        if len(piece) - at < _CENTRAL.size or piece[at : at + 4] != CENTRAL_MAGIC:
            skipped[SkipReason.DAMAGED_ARCHIVE] += 1
            return
        fields = _CENTRAL.unpack_from(piece, at)
        system, flags, method, crc, stored, inflated = fields[2], *fields[5:7], *fields[9:12]
        name_length, extra_length, comment_length, disk = fields[12:16]
        attributes, header = fields[17:19]
        at += _CENTRAL.size
        raw_name = piece[at : at + name_length]
        extra = piece[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        inflated, stored, header = _large(extra, inflated, stored, header)
        if max(inflated, stored, header) > _LARGEST:
            skipped[SkipReason.DAMAGED_ARCHIVE] += 1
            return
        name = member_name(raw_name, flags, extra)
        yield Record(
            name,
            header if directory.disk else header + directory.shift,
            stored,
            inflated,
            crc,
            method,
            bool(flags & _ENCRYPTED),
            disk=disk,
            is_folder=_is_folder(name, inflated, attributes),
            is_link=system in _UNIX_AND_MACOS and S_ISLNK(attributes >> 16),
        )


def _is_folder(name: str, size_bytes: int, attributes: int) -> bool:
    """Whether a member is a folder: by its name, which may end in a backslash, or by its attributes."""
    return name.endswith("/") or (not size_bytes and (name.endswith("\\") or bool(attributes & _DOS_FOLDER)))


def records_before_cut(read_at: ReadAt, size: int) -> Iterator[Record]:
    """The members of a zip without a directory, up to the cut at `size`.

    A member that was written before its size was known has the size after its data: it is inflated to find
    its end.
    """
    offset = first_member(read_at)
    while offset + LOCAL_HEADER.size <= size:
        block = read_at(offset, LOCAL_HEADER.size + LOCAL_SLACK)
        if len(block) < LOCAL_HEADER.size or not block.startswith(LOCAL_MAGIC):
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
        extra = block[LOCAL_HEADER.size + name_length : head]
        inflated, stored, _ = _large(extra, inflated, stored, 0)
        if flags & SIZES_FOLLOW:
            found = _by_inflating(read_at, offset + head) if method == DEFLATED else None
            if found is None or flags & _ENCRYPTED:
                return
            crc, stored, inflated = found
            head += descriptor_bytes(read_at(offset + head + stored, MAX_DESCRIPTOR + 4))
        if max(inflated, stored) > _LARGEST:
            return
        end = offset + head + stored
        encrypted = bool(flags & _ENCRYPTED)
        name_text = member_name(name, flags, extra)
        yield Record(
            name_text,
            offset,
            stored,
            inflated,
            crc,
            method,
            encrypted,
            cut=end > size,
            is_folder=_is_folder(name_text, inflated, 0),
        )
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


def descriptor_bytes(block: bytes) -> int:
    """Length of the checksum and sizes after a member: with or without a signature, sizes of four or eight
    bytes."""
    for length in (16, 24, 12, 20):
        if block[length : length + 4] == LOCAL_MAGIC:
            return length
    return MAX_DESCRIPTOR


def _large(extra: bytes, inflated: int, stored: int, header: int) -> tuple[int, int, int]:
    """Sizes and offset; those that do not fit 32 bits come from the zip64 extra field."""
    values = [inflated, stored, header]
    if 0xFFFFFFFF not in values:
        return inflated, stored, header
    field = _extra_field(extra, _ZIP64)
    for number, value in enumerate(values):
        if value == 0xFFFFFFFF and len(field) >= 8:
            values[number] = int.from_bytes(field[:8], "little")
            field = field[8:]
    return values[0], values[1], values[2]


def _extra_field(extra: bytes, wanted: int) -> bytes:
    """The first extra field of a kind, empty where there is none."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def member_name(name: bytes, flags: int, extra: bytes) -> str:
    """The name of a member: in UTF-8 where a flag or a field of its own says so, or where it can be.

    Else it is in the character set of DOS.
    """
    if flags & _UTF8:
        return as_text(name)
    field = _extra_field(extra, _UNICODE_PATH)
    # A version, and the checksum of the name that the field was made for (APPNOTE.TXT 4.6.9).
    if field[:1] == b"\x01" and field[1:5] == zlib.crc32(name).to_bytes(4, "little"):
        return as_text(field[5:])
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")
