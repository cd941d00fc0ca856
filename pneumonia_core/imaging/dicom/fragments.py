"""The fragments of a compressed picture in a DICOM file (PS3.5, A.4)."""

import struct
from typing import Final

from pneumonia_core.errors import RejectedImage

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_ITEM: Final = b"\xfe\xff\x00\xe0"
_DELIMITER: Final = b"\xfe\xff\xdd\xe0"
# The last marker of JPEG and of JPEG 2000.
_END_OF_IMAGE: Final = b"\xff\xd9"
# The first markers of JPEG, of JPEG-LS and of JPEG 2000.
_STARTS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51")


def read_fragments(data: memoryview) -> bytes:
    """The items at the start of `data`, up to their delimiter, which is left out.

    Some programs write no delimiter, or zeros in its place. Then the picture must have its own end. Raises
    RejectedImage where it is cut short.
    """
    at, items = 0, 0
    while bytes(data[at : at + 4]) == _ITEM and at + 8 <= len(data):
        end = at + 8 + struct.unpack_from("<I", data, at + 4)[0]
        if end > len(data):
            raise _truncated()
        at, items = end, items + 1
    if bytes(data[at : at + 4]) == _DELIMITER:
        return bytes(data[:at])
    rest = bytes(data[at:])
    if not rest.strip(b"\0") or _DELIMITER.startswith(rest):
        # The first item is a table of offsets.
        if items < 2 or not _has_its_end(bytes(data[:at])):
            raise _truncated()
        return bytes(data[:at])
    # The lengths of its items are wrong: the delimiter tells where they end.
    end = rest.find(_DELIMITER)
    if end < 0:
        raise _truncated()
    return bytes(data[: at + end])


def _has_its_end(items: bytes) -> bool:
    """Whether a picture that is written with an end has it. Run-length encoding has none."""
    return items.rstrip(b"\0").endswith(_END_OF_IMAGE) or not any(start in items[:4096] for start in _STARTS)


def _truncated() -> RejectedImage:
    return RejectedImage("truncated", "the file ends before the picture does")
