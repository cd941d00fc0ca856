"""How a file is packed, by its first bytes."""

import io
import struct
import tarfile
import zlib
from typing import Final, Literal, get_args

from pneumonia_core.archives.entries import TarCompression
from pneumonia_core.archives.packing.inflaters import INFLATING_ERRORS, inflater
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.formats import SNIFFED_BYTES, is_image_head

# "other" is a packing that this program does not open.
Packing = Literal["zip", "tar", "gz", "bz2", "xz", "zst", "other"]
# So many bytes hold the first block of a file that a fast or usual level has compressed. A block of bzip2 has
# up to 900,000 bytes.
FIRST_BLOCK_BYTES: Final = 2**20
COMPRESSIONS: Final = get_args(TarCompression)
_MAGIC: Final[tuple[tuple[bytes, Packing], ...]] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    # The first disk of a zip that was split, or that was made to be.
    (b"PK\x07\x08", "zip"),
    (b"PK00PK\x03\x04", "zip"),
    (b"\x1f\x8b\x08", "gz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "other"),
    (b"Rar!\x1a\x07", "other"),
    (b"\x1f\x9d", "other"),
    (b"LZIP", "other"),
    (b"\x04\x22\x4d\x18", "other"),
    (b"MSCF\x00\x00\x00\x00", "other"),
    (b"070701", "other"),
    (b"070702", "other"),
    (b"!<arch>\n", "other"),
)
_BZIP2_BLOCK: Final = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
_LARGEST_SOURCE: Final = 2**40


def packing_of(head: bytes) -> Packing | None:
    """How a file is packed that begins with SNIFFED_BYTES of `head`, or is as short; None where it is not."""
    for magic, packing in _MAGIC:
        if head.startswith(magic):
            return packing
    if head[:3] == b"BZh" and head[4:10] in _BZIP2_BLOCK:
        return "bz2"
    if 0x50 <= int.from_bytes(head[:1], "big") < 0x60 and head[1:4] == b"\x2a\x4d\x18":
        # Frames to be skipped come first where several processors compressed.
        return "zst"
    return "tar" if _is_tar_header(head) else None


def _is_tar_header(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def compressed_tar(first: bytes) -> TarCompression | None:
    """The compression of a file that begins with these bytes, up to FIRST_BLOCK_BYTES, if it is of a tar."""
    packing = packing_of(first[:SNIFFED_BYTES])
    for compression in COMPRESSIONS:
        if packing == compression:
            return compression if _is_tar_header(_inflated_head(first, compression)) else None
    return None


def _inflated_head(first: bytes, compression: TarCompression) -> bytes:
    stream = inflater(io.BytesIO(first), compression)
    head = b""
    try:
        while len(head) < SNIFFED_BYTES and (piece := stream.read(SNIFFED_BYTES - len(head))):
            head += piece
    except (*INFLATING_ERRORS, RejectedImage):
        # The first bytes may be all that could be inflated of them.
        return head
    return head


def is_orthanc_attachment(head: bytes) -> bool:
    """Whether Orthanc has compressed an image to this file: its size in 8 bytes, then a zlib stream."""
    if len(head) < 10 or not 0 < struct.unpack_from("<Q", head)[0] < _LARGEST_SOURCE:
        return False
    try:
        return is_image_head(zlib.decompressobj().decompress(head[8:], SNIFFED_BYTES))
    except zlib.error:
        return False
