"""Files of the cache of decoded squares: the pack of a chunk, and entries that say where its squares are.

Squares and lists of entries begin with the SHA-256 of what follows, so that one that is torn or damaged is
known before it is parsed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.imaging.contract import Decoded, Source
from pneumonia_core.imaging.decode import decode_square
from pneumonia_core.imaging.study_key import hash_key_digest
from pneumonia_core.system.messages import pack, unpack

_DIGEST_BYTES: Final = 32
_KEY_BYTES: Final = 8
# Where a square is: the key of its image, the chunk whose pack has it, and its bytes there.
ENTRY: Final = np.dtype([("key", "<u8"), ("chunk", "<u4"), ("offset", "<u4"), ("length", "<u4")])
# Squares that lie closer together are read at once.
_GAP_BYTES: Final = 64 * 2**10
_MAX_RANGE_BYTES: Final = 8 * 2**20


class DamagedFile(ValueError):
    """A file of the cache is not what was written."""


@dataclass(frozen=True)
class CachedSquare:
    """The square of an image as the JPEG that decoding has made of it, and what is known of its source.

    `hash_key` tells under which key the study key of a DICOM file is.
    """

    uri: str
    version: str
    jpeg: bytes
    source: Source
    hash_key: str | None

    def is_of(self, ref: ImageRef) -> bool:
        """Whether decoding this image here would give this square and this source."""
        same = (self.uri, self.version) == (ref.uri, ref.version)
        return same and self.hash_key == _hash_key(self.source)

    def decoded(self, size: int) -> Decoded:
        """The image as decoding its source gave it."""
        return Decoded(decode_square(self.jpeg, size), self.source)


@dataclass(frozen=True)
class Range:
    """A stretch of a pack, and the squares in it: their numbers and their entries."""

    offset: int
    length: int
    squares: Sequence[tuple[int, np.void]]


def key_of(uri: str, version: str) -> int:
    """The key of an image. Two images may share one: the square itself says which it is of."""
    digest = hashlib.blake2b(f"{version}\0{uri}".encode(), digest_size=_KEY_BYTES).digest()
    return int.from_bytes(digest, "little")


def packed(chunk: int, images: Iterable[tuple[ImageRef, Decoded]]) -> tuple[bytes, np.ndarray]:
    """The pack of a chunk's images, and ENTRY [N] for each of them. They have a version and a square."""
    pieces: list[bytes] = []
    entries: list[tuple[int, int, int, int]] = []
    offset = 0
    for ref, image in images:
        assert ref.version is not None
        assert image.encoded is not None
        square = CachedSquare(ref.uri, ref.version, image.encoded, image.source, _hash_key(image.source))
        pieces.append(seal(b"".join(pack(square))))
        entries.append((key_of(ref.uri, ref.version), chunk, offset, len(pieces[-1])))
        offset += len(pieces[-1])
    return b"".join(pieces), np.array(entries, ENTRY)


def _hash_key(source: Source) -> str | None:
    return hash_key_digest() if source.format == "dicom" else None


def ranges(wanted: Iterable[tuple[int, np.void]]) -> Iterator[Range]:
    """The stretches of a pack that hold the wanted squares, each with its number and its entry."""
    some: list[tuple[int, np.void]] = []
    start = end = 0
    for number, entry in sorted(wanted, key=lambda each: int(each[1]["offset"])):
        offset = int(entry["offset"])
        after = offset + int(entry["length"])
        if some and (offset - end > _GAP_BYTES or after - start > _MAX_RANGE_BYTES):
            yield Range(start, end - start, some)
            some = []
        if not some:
            start = offset
        some.append((number, entry))
        end = after
    if some:
        yield Range(start, end - start, some)


def squares_in(stretch: Range, content: bytes) -> Iterator[tuple[int, CachedSquare]]:
    """The squares in the bytes of a stretch, by their numbers; those that are damaged are left out."""
    for number, entry in stretch.squares:
        at = int(entry["offset"]) - stretch.offset
        try:
            square = unpack(unseal(content[at : at + int(entry["length"])]), CachedSquare)
        except ValueError:
            continue
        assert isinstance(square, CachedSquare)
        yield number, square


def seal(body: bytes) -> bytes:
    """These bytes behind their checksum."""
    return hashlib.sha256(body).digest() + body


def unseal(content: bytes) -> bytes:
    """The bytes behind a checksum. Raises DamagedFile where it is not theirs."""
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedFile("the checksum does not match")
    return body


def entries_in(content: bytes) -> np.ndarray:
    """ENTRY [N] of a file of entries. Raises ValueError."""
    return np.frombuffer(unseal(content), ENTRY)
