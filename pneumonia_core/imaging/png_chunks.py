"""The chunks of a PNG that its picture needs."""

import struct
import zlib
from typing import Final

_SIGNATURE_BYTES: Final = 8
# Text and profiles show nothing. Pillow inflates them, and refuses the file where one is large.
_TEXT: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_PICTURE: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})
# Text may hold the orientation. Pillow takes up to 1 MiB of it; a byte that is deflated has at most 1032.
_MAX_TEXT_BYTES: Final = 1 << 20
_MAX_DEFLATED: Final = 1 << 10
_MAX_TEXTS: Final = 32


def without_clutter(data: bytes) -> bytes:
    """The PNG without what other programs have added: profiles, long texts, private and damaged extras.

    From the first chunk on that is cut short it is as it was.
    """
    kept, at, start, texts = [], _SIGNATURE_BYTES, 0, 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        texts += kind in _TEXT
        if kind not in _PICTURE and not (
            kind in _TEXT and texts <= _MAX_TEXTS and _is_short(data, at, length)
        ):
            kept.append(data[start:at])
            start = end
        at = end
    return data if not kept else b"".join((*kept, data[start:]))


def _is_short(data: bytes, at: int, length: int) -> bool:
    """Whether the text of a chunk is within the limit, and whole."""
    if length > _MAX_TEXT_BYTES:
        return False
    body = memoryview(data)[at + 8 : at + 8 + length]
    (stated,) = struct.unpack_from(">I", data, at + 8 + length)
    if zlib.crc32(body, zlib.crc32(data[at + 4 : at + 8])) != stated:
        return False
    return length <= _MAX_DEFLATED or _inflates_to_little(bytes(body))


def _inflates_to_little(body: bytes) -> bool:
    # A zlib stream begins with 0x78 behind the keyword; text that is not deflated passes as it is.
    start = body.find(b"\0", 0, 80) + 1
    stream = body.find(b"\x78", start, start + 200)
    if stream < 0:
        return True
    try:
        inflater = zlib.decompressobj()
        return len(inflater.decompress(body[stream:], _MAX_TEXT_BYTES)) < _MAX_TEXT_BYTES
    except zlib.error:
        return True
