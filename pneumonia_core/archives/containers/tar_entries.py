"""Entries of a tar, as its headers tell them: of every dialect, one tar after another, up to a cut.

Python's tarfile keeps every member, and reads a header of any length that a hostile file declares into
memory. Only its parsing of one header block is used here.
"""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pneumonia_core.archives.entries import ReadAt
from pneumonia_core.archives.packing.heads import packing_of
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.storage.backend import as_text

BLOCK: Final = 512
# Names are up to 4096 bytes on Linux; extended headers carry some more.
_MAX_EXTENDED_BYTES: Final = 2**20
# No program writes more of them before one member.
_MAX_EXTENDED_HEADERS: Final = 32
SPARSE: Final = "GNU.sparse"
SPECIAL: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_WITHOUT_DATA: Final = (*SPECIAL, tarfile.SYMTYPE, tarfile.DIRTYPE)
_EXTENDED: Final = (
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_GNU_MAGIC: Final = b"ustar  \0"
# What describes the archive or a later entry: global headers, the label of the volume, names as GNU tar wrote
# them before 1989, access rights and attributes of Solaris.
_IGNORED: Final = (tarfile.XGLTYPE, b"V", b"N", b"A", b"E")
# A folder, and one with the list of its files, as an incremental GNU tar has it.
FOLDERS: Final = (tarfile.DIRTYPE, b"D")
# The rest of a file that began in an earlier volume.
CONTINUED: Final = b"M"
# At the end, zeros are read in such pieces; other tars may follow them.
_ZEROS_AT_ONCE: Final = 2**16


class BrokenTar(Exception):
    """The tar is cut or damaged: no member after this place can be found."""

    def __init__(self, reason: SkipReason) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Entry:
    """One entry of a tar: its header, the records of its extended headers, and its data."""

    header: tarfile.TarInfo
    extended: Mapping[str, bytes]
    offset: int
    size_bytes: int


def entries(read_at: ReadAt) -> Iterator[Entry]:
    """The entries of all types but extended headers, which are part of the entry that follows.

    Raises BrokenTar.
    """
    offset, extended, extended_headers = 0, dict[str, bytes](), 0
    while (offset := _next_header(read_at, offset)) >= 0:
        block = read_at(offset, BLOCK)
        header, size = _header(block, extended)
        offset += BLOCK
        if header.type == tarfile.LNKTYPE and size and not _has_data(read_at, offset):
            size = 0
        if header.type in _EXTENDED:
            extended_headers += 1
            if size > _MAX_EXTENDED_BYTES or extended_headers > _MAX_EXTENDED_HEADERS:
                raise BrokenTar(SkipReason.DAMAGED_ARCHIVE)
            extended.update(_records(header, read_at(offset, size)))
        elif header.type not in _IGNORED:
            if header.type == tarfile.GNUTYPE_SPARSE:
                offset += _sparse_map_bytes(read_at, offset, block)
            yield Entry(header, extended, offset, size)
            extended, extended_headers = {}, 0
        offset += -(-size // BLOCK) * BLOCK


class LastRead:
    """A ReadAt that also gives once more what it gave last, of a stream that only goes forward."""

    def __init__(self, read_at: ReadAt) -> None:
        self._read_at = read_at
        self._start = 0
        self._data = b""

    def __call__(self, offset: int, count: int) -> bytes:
        at = offset - self._start
        if not 0 <= at <= len(self._data) - count:
            kept = self._data[at:] if 0 <= at < len(self._data) else b""
            self._data = kept + self._read_at(offset + len(kept), count - len(kept))
            self._start, at = offset, 0
        return self._data[at : at + count]


def _next_header(read_at: ReadAt, offset: int) -> int:
    """The offset of the next header from `offset` on; -1 at the end of the file.

    A tar may end without zeros, and after its zeros another tar may follow. Raises BrokenTar.
    """
    # The byte before shows whether the data before are all there.
    before = min(offset, 1)
    block = read_at(offset - before, before + BLOCK)
    if not block:
        raise BrokenTar(SkipReason.TRUNCATED_ARCHIVE)
    block = block[before:]
    while block and not any(block):
        piece = read_at(offset, _ZEROS_AT_ONCE)
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        offset += zeros if zeros == len(piece) else zeros // BLOCK * BLOCK
        block = read_at(offset, BLOCK)
    if block and len(block) < BLOCK:
        raise BrokenTar(SkipReason.TRUNCATED_ARCHIVE)
    return offset if block else -1


def _has_data(read_at: ReadAt, offset: int) -> bool:
    """Whether a hard link that tells a size is followed by so many bytes, as bsdtar writes some.

    Most programs tell the size of the file, and write no data: the next header follows, or the end.
    """
    # From the byte before on, which is asked for once more.
    block = read_at(offset - 1, 1 + BLOCK)[1:]
    return any(block) and packing_of(block) != "tar"


def _header(block: bytes, extended: Mapping[str, bytes]) -> tuple[tarfile.TarInfo, int]:
    """A parsed header block, and the size of the data that follows it. Raises BrokenTar."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if block[257:265] == _GNU_MAGIC:
            # No prefix of the name, but times, where the tar is incremental: Python takes them for a prefix.
            header.name = block[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return header, _size(header, extended)
    except (tarfile.HeaderError, ValueError):
        raise BrokenTar(SkipReason.DAMAGED_ARCHIVE) from None


def _size(header: tarfile.TarInfo, extended: Mapping[str, bytes]) -> int:
    """Bytes of data after the header. Raises ValueError for a size that no file has."""
    if header.type in _WITHOUT_DATA:
        return 0
    size = int(extended.get("size", header.size))
    if not 0 <= size < 2**62:
        raise ValueError("size")
    return size


def entry_name(entry: Entry) -> str:
    return as_text(entry.extended.get("path") or entry.header.name.encode("utf-8", "surrogateescape"))


def link_name(entry: Entry) -> str:
    return as_text(entry.extended.get("linkpath") or entry.header.linkname.encode("utf-8", "surrogateescape"))


def _records(header: tarfile.TarInfo, data: bytes) -> dict[str, bytes]:
    """What the data of an extended header say of the entry that follows."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0]}
    if header.type == tarfile.GNUTYPE_LONGLINK:
        return {"linkpath": data.split(b"\0", 1)[0]}
    return _pax_records(data)


def _pax_records(data: bytes) -> dict[str, bytes]:
    """Those of the records `LENGTH KEY=VALUE\\n` of an extended header that matter, up to the first malformed
    one."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        digits, space, _ = data[position : position + 20].partition(b" ")
        if not space or not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        record = data[position + len(digits) + 1 : position + int(digits)]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        if key in (b"path", b"linkpath", b"size"):
            records[key.decode("ascii")] = value
        elif key.startswith(SPARSE.encode()):
            # One key says that the file is sparse: there may be any number of them.
            records[SPARSE] = b""
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
