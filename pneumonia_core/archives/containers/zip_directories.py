"""Where the central directories of a zip are: one for each zip that the file is joined of."""

import struct
from dataclasses import dataclass
from typing import Final

from pneumonia_core.archives.entries import ReadAt

# Layouts of APPNOTE.TXT 6.3: end of the directory, zip64 end and its locator.
_END: Final = struct.Struct("<4s4H2LH")
_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
CENTRAL_MAGIC: Final = b"PK\x01\x02"
LOCAL_MAGIC: Final = b"PK\x03\x04"
# Before the first member of a zip in parts, and of one that was to have some.
_PART_MAGICS: Final = (b"PK\x07\x08", b"PK00")
_MAX_COMMENT: Final = 65_535
# A comment may have what looks like an end record.
_MOST_ENDS: Final = 16
_NOT_HERE: Final = 0xFFFF
# Offsets of 32 bits begin again after so many bytes.
_WRAP: Final = 2**32
# Each is some dozen bytes, and a hostile file could have millions.
_MOST_ZIPS: Final = 1000


@dataclass(frozen=True)
class Directory:
    """A central directory from `start` to `end`. `shift` is added to the offsets that it tells.

    `disk` is the number of the part that it is in, `wraps` says that offsets of 4 GiB and more have lost
    their upper bits, as those of macOS's Finder have.
    """

    start: int
    end: int
    shift: int
    disk: int = 0
    wraps: bool = False


def find_directories(read_at: ReadAt, size: int) -> tuple[list[Directory], int]:
    """The directories of a zip of `size` bytes, in their order, and how many bytes no directory tells of."""
    found: list[Directory] = []
    end = size
    while len(found) < _MOST_ZIPS:
        directory = _find_directory(read_at, end, is_last=not found)
        if directory is None:
            # Before a zip may be another one that was cut, or a program that unpacks it.
            begins_so = not found or read_at(0, 4) == LOCAL_MAGIC
            return found[::-1], end if begins_so else 0
        found.append(directory)
        if directory.wraps or directory.disk or directory.shift < _END.size:
            return found[::-1], 0
        end = directory.shift
    return found[::-1], end


def first_member(read_at: ReadAt) -> int:
    """The offset of the first member of a zip, which may begin with a mark that it is in parts."""
    return 4 if read_at(0, 4) in _PART_MAGICS else 0


def _find_directory(read_at: ReadAt, size: int, is_last: bool) -> Directory | None:
    """The directory that ends at `size`; other bytes may follow the last one."""
    start = max(0, size - _END.size - _MAX_COMMENT)
    tail = read_at(start, size - start)
    at = len(tail)
    looser: Directory | None = None
    for _ in range(_MOST_ENDS):
        at = tail.rfind(b"PK\x05\x06", 0, at)
        if at < 0:
            break
        if len(tail) < at + _END.size:
            continue
        *_, comment_length = _END.unpack_from(tail, at)
        ends_at = at + _END.size + comment_length
        if ends_at == len(tail):
            found = _directory(read_at, start + at, tail[at:], size)
            if found is not None:
                return found
        elif ends_at < len(tail) and is_last and looser is None:
            looser = _directory(read_at, start + at, tail[at:], size)
    return looser


def _directory(read_at: ReadAt, end: int, record: bytes, size: int) -> Directory | None:
    """The directory that ends before the end record at `end`; None where there is none."""
    _, disk, _, _, _, length, offset, _ = _END.unpack_from(record)
    is_zip64 = False
    locator = read_at(end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
    if len(locator) == _LOCATOR.size and locator.startswith(b"PK\x06\x07"):
        # Where the locator says, or right before it: bytes may have been put before the zip.
        is_zip64, right_before = True, end - _LOCATOR.size - _END64.size
        for end64 in (_LOCATOR.unpack(locator)[2], right_before):
            record64 = read_at(end64, _END64.size) if 0 <= end64 < size else b""
            if len(record64) == _END64.size and record64.startswith(b"PK\x06\x06"):
                break
        else:
            return None
        *_, disk64, _, _, _, length, offset = _END64.unpack(record64)
        disk = disk64 if disk == _NOT_HERE else disk
        end = end64
    start = end - length
    if start < 0:
        return None
    shift = start - offset
    if length and read_at(start, 4) != CENTRAL_MAGIC:
        # There are other bytes between the directory and its end.
        if read_at(offset, 4) != CENTRAL_MAGIC:
            return None
        start, end, shift = offset, offset + length, 0
    if shift < 0:
        return None
    wraps = bool(shift) and shift % _WRAP == 0 and not is_zip64
    return Directory(start, end, 0 if wraps else shift, disk, wraps)
