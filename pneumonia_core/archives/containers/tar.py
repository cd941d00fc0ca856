"""Members of a tar, from its headers alone, and one member's bytes: nothing is unpacked, and nothing large is held.

Python's tarfile keeps every member, and reads a header of any length that a hostile file declares into memory;
its parsing of one header block is used here.
"""

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.location import MAX_SOURCE_BYTES, as_text

BLOCK: Final = 512
# Names are up to 4096 bytes on Linux; extended headers carry some more.
_MAX_EXTENDED_BYTES: Final = 2**20
# So many of them no program writes before one member.
_MAX_EXTENDED_HEADERS: Final = 32
_SPARSE: Final = "GNU.sparse"
_REGULAR: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA: Final = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
CUT: Final = "archive that is cut short"
DAMAGED: Final = "archive that is damaged"
ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class TarMember:
    """A regular file in a tar: its bytes stand at `offset`, `size_bytes` of them."""

    name: str
    offset: int
    size_bytes: int


def tar_members(read_at: ReadAt, skipped: Counter[str]) -> Iterator[TarMember]:
    """The regular members in their order; `read_at(offset, count)` is asked for growing offsets only, and
    gives less than `count` at the end. A tar that is cut or damaged gives its members before that place, and
    is counted."""
    offset = 0
    extended: dict[str, bytes] = {}
    extended_headers = 0
    while True:
        block = read_at(offset, BLOCK)
        if len(block) < BLOCK:
            skipped[CUT] += 1
            return
        if not any(block):
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")  # type: ignore[arg-type]
            size = _size(header, extended)
        except (tarfile.HeaderError, ValueError):
            skipped[DAMAGED] += 1
            return
        offset += BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE):
            extended_headers += 1
            if size > _MAX_EXTENDED_BYTES or extended_headers > _MAX_EXTENDED_HEADERS:
                skipped[DAMAGED] += 1
                return
            data = read_at(offset, size)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = data.split(b"\0", 1)[0]
            else:
                extended.update(_pax_records(data))
        elif header.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            pass
        else:
            if header.type == tarfile.GNUTYPE_SPARSE:
                offset += _sparse_map_bytes(read_at, offset, block)
            kind = _kind(header, extended)
            if kind is None:
                yield TarMember(_name(header, extended), offset, size)
            elif kind != "folder":
                skipped[kind] += 1
            extended, extended_headers = {}, 0
        offset += -(-size // BLOCK) * BLOCK


def _size(header: tarfile.TarInfo, extended: dict[str, bytes]) -> int:
    """Bytes of data behind the header. Raises ValueError where it says nonsense."""
    if header.type in _WITHOUT_DATA:
        return 0
    size = int(extended.get("size", header.size))
    if not 0 <= size < 2**62:
        raise ValueError("size")
    return size


def _kind(header: tarfile.TarInfo, extended: dict[str, bytes]) -> str | None:
    """None for a regular file, else as what it is counted."""
    if header.type == tarfile.DIRTYPE:
        return "folder"
    if header.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return "link in an archive"
    if header.type == tarfile.GNUTYPE_SPARSE or _SPARSE in extended:
        return "sparse file in an archive"
    # As tar itself does, what is of an unknown type is taken for a file.
    return "no regular file" if header.type in _WITHOUT_DATA else None


def _name(header: tarfile.TarInfo, extended: dict[str, bytes]) -> str:
    return as_text(extended.get("path") or header.name.encode("utf-8", "surrogateescape"))


def _pax_records(data: bytes) -> dict[str, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header that matter, as far as they can be read."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        digits, space, _ = data[position : position + 20].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        record = data[position + len(digits) + 1 : position + int(digits)]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key in (b"path", b"size"):
            records[key.decode("ascii")] = value
        elif key.startswith(_SPARSE.encode()):
            # That it is one is all we ask: there may be any number of such keys.
            records[_SPARSE] = b""
        position += int(digits)
    return records


def _sparse_map_bytes(read_at: ReadAt, offset: int, block: bytes) -> int:
    """Bytes of the map that follows an old GNU sparse header."""
    start, more = offset, bool(block[482])
    while more:
        block = read_at(offset, BLOCK)
        offset += BLOCK
        more = len(block) == BLOCK and bool(block[504])
    return offset - start


def read_tar_member(read_at: ReadAt, offset: int, size_bytes: int) -> bytes:
    """The bytes of a member. Raises RejectedImage: it may be cut, or larger than any image."""
    if size_bytes > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{size_bytes} bytes, the limit is {MAX_SOURCE_BYTES}")
    data = read_at(offset, size_bytes)
    if len(data) < size_bytes:
        raise RejectedImage("truncated", f"the archive ends after {len(data)} of {size_bytes} bytes")
    return data
