"""Formats of images: by the suffix of a name, or by the first bytes of the content."""

import re
import struct
from typing import Final

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES

IMAGE_SUFFIXES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        *("jpeg", "jpg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp", "gif", "jp2", "j2k", "avif"),
        *("dcm", "dicom", "heic", "heif", "jxl"),
    )
)
# So many first bytes tell the format.
SNIFFED_BYTES: Final = 512
# Pictures of formats that no decoder here reads: what a rejection calls them.
UNREAD_FORMATS: Final = {
    "heic": "HEIC",
    "jpegxl": "JPEG XL",
    "jpegxr": "JPEG XR",
    "psd": "Photoshop",
    "openexr": "OpenEXR",
    "pnm": "PGM or another of Netpbm",
    "fits": "FITS",
    "nifti": "NIfTI or Analyze",
    "metaimage": "MetaImage",
    "nrrd": "NRRD",
    "minc": "MINC",
    "interfile": "Interfile",
    "vtk": "VTK",
}
_MAGIC: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    # BigTIFF, and two headers with the bytes of the number in the wrong order, which viewers read.
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"II\x00*", "tiff"),
    (b"MM*\x00", "tiff"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jpegxl"),
    (b"\xff\x0a", "jpegxl"),
    (b"II\xbc\x01", "jpegxr"),
    (b"8BPS\x00", "psd"),
    (b"v/1\x01", "openexr"),
    (b"SIMPLE  =", "fits"),
    (b"NRRD000", "nrrd"),
    (b"CDF\x01\x00", "minc"),
    (b"!INTERFILE", "interfile"),
    (b"# vtk DataFile", "vtk"),
)
_PATTERNS: Final = (
    (re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s|P7\nWIDTH "), "pnm"),
    (re.compile(rb"\s*(?:[A-Za-z]+ *= *[^\n]*\n)*(?:ObjectType *= *Image|NDims *= *\d)"), "metaimage"),
)
# What a file of the ISO base media format says that it can be read as.
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
# Value representations of the elements that a DICOM data set can begin with.
_FIRST_VRS: Final = (b"UL", b"CS", b"UI", b"DA", b"DT", b"TM")


def sniff_format(data: bytes) -> str:
    """The format of the content: jpeg, png, bmp, tiff, webp, gif, jpeg2000, avif, dicom, or one of
    UNREAD_FORMATS.

    Raises RejectedImage for any other.
    """
    if not data:
        raise RejectedImage("empty", "the file has 0 bytes")
    if len(data) > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{len(data)} bytes, the limit is {MAX_SOURCE_BYTES}")
    if data[128:132] == b"DICM":
        return "dicom"
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if (structured := _by_structure(data[:SNIFFED_BYTES])) is not None:
        return structured
    if _is_bare_dicom(data):
        return "dicom"
    raise RejectedImage("not_an_image", "the content is of no known image format")


def _by_structure(head: bytes) -> str | None:
    """The format of a file that no fixed first bytes tell; None for any other."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)) - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        return "heic" if brands & _HEIC_BRANDS else None
    if _is_nifti(head):
        return "nifti"
    return next((name for pattern, name in _PATTERNS if pattern.match(head)), None)


def _is_nifti(head: bytes) -> bool:
    """Whether this is the header of NIfTI, or of Analyze, from which it comes: first its own length."""
    for order in "<>":
        (length,) = struct.unpack(f"{order}i", head[:4].ljust(4, b"\0"))
        if length == 540 and head[4:7] in (b"n+2", b"ni2"):
            return True
        if length == 348 and (head[344:347] in (b"n+1", b"ni1") or head[38:39] == b"r"):
            return True
    return False


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
    """Whether these are the first bytes of a picture, also of one in a format that is not read."""
    try:
        sniff_format(head)
    except RejectedImage:
        return False
    return True
