"""Formats of images: by the suffix of a name, or by the first bytes of the content."""

import struct
from typing import Final

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES

IMAGE_SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".dcm"})
# So many first bytes tell the format.
SNIFFED_BYTES: Final = 512
_MAGIC: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)
# Value representations of the elements that a DICOM data set can begin with.
_FIRST_VRS: Final = (b"UL", b"CS", b"UI", b"DA", b"DT", b"TM")


def sniff_format(data: bytes) -> str:
    """The format of the content: jpeg, png, bmp, tiff or dicom. Raises RejectedImage for any other."""
    if not data:
        raise RejectedImage("empty", "the file has 0 bytes")
    if len(data) > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{len(data)} bytes, the limit is {MAX_SOURCE_BYTES}")
    if data[128:132] == b"DICM":
        return "dicom"
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if _is_bare_dicom(data):
        return "dicom"
    raise RejectedImage("not_an_image", "the content is not JPEG, PNG, BMP, TIFF or DICOM")


def _is_bare_dicom(data: bytes) -> bool:
    """Whether a DICOM data set begins here without preamble: two elements in order, the first in group 2 or
    8."""
    if len(data) < 8:
        return False
    group, element, vr, short, length = struct.unpack("<HH2sH", data[:8]) + struct.unpack("<I", data[4:8])
    if group not in (0x0002, 0x0008) or element > 0x0018:
        return False
    follows = data[8 + (short if vr in _FIRST_VRS else length) :][:4]
    next_group, next_element = struct.unpack("<HH", follows) if len(follows) == 4 else (0, 0)
    return next_group in (0x0002, 0x0008, 0x0010) and (next_group, next_element) > (group, element)


def is_image_head(head: bytes) -> bool:
    """Whether these are the first bytes of an image."""
    try:
        sniff_format(head)
    except RejectedImage:
        return False
    return True
