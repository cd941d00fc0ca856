"""The frame header of a JPEG."""

import struct


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
