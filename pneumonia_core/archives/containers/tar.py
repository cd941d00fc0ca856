"""Members of a tar, from its headers alone, and the bytes of one. Nothing is unpacked, and nothing large is
held.

Python's tarfile keeps every member, and reads a header of any length that a hostile file declares into
memory. Only its parsing of one header block is used here.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pneumonia_core.archives.entries import Member, ReadAt, TarCompression, TarEntry, tar_member_version
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile, as_text

BLOCK: Final = 512
# Names are up to 4096 bytes on Linux; extended headers carry some more.
_MAX_EXTENDED_BYTES: Final = 2**20
# No program writes more of them before one member.
_MAX_EXTENDED_HEADERS: Final = 32
_SPARSE: Final = "GNU.sparse"
_SPECIAL: Final = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
_WITHOUT_DATA: Final = (*_SPECIAL, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE)
_EXTENDED: Final = (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.SOLARIS_XHDTYPE)
_IGNORED: Final = (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK)


class _Broken(Exception):
    """The tar is cut or damaged: no member after this place can be found."""

    def __init__(self, reason: SkipReason) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class _Entry:
    """One entry of a tar: its header, the records of its extended headers, and its data."""

    header: tarfile.TarInfo
    extended: Mapping[str, bytes]
    offset: int
    size_bytes: int


def tar_members(
    tar: StoredFile, compression: TarCompression | None, read_at: ReadAt, skipped: Counter[SkipReason]
) -> Iterator[Member]:
    """The regular files of a tar in their order. A tar that is cut or damaged gives those before that place,
    and is counted.

    `read_at` is asked for growing offsets only, in the inflated stream of a compressed tar.
    """
    try:
        for entry in _entries(read_at):
            reason = _skip_reason(entry)
            if reason is not None:
                skipped[reason] += 1
            elif entry.header.type != tarfile.DIRTYPE:
                yield _member(entry, tar, compression, read_at)
    except _Broken as broken:
        skipped[broken.reason] += 1


def _member(entry: _Entry, tar: StoredFile, compression: TarCompression | None, read_at: ReadAt) -> Member:
    offset, size_bytes = entry.offset, entry.size_bytes
    return Member(
        name=_name(entry),
        version=tar_member_version(tar.version, offset),
        offset=offset,
        size_bytes=size_bytes,
        source=TarEntry(tar.uri, tar.version, offset, size_bytes, compression),
        head=lambda count: read_at(offset, min(count, size_bytes)),
    )


def _entries(read_at: ReadAt) -> Iterator[_Entry]:
    """The entries of all types but extended headers, which are part of the entry that follows.

    Raises _Broken.
    """
    offset, extended, extended_headers = 0, dict[str, bytes](), 0
    while (block := _block(read_at, offset)) is not None:
        header, size = _header(block, extended)
        offset += BLOCK
        if header.type in _EXTENDED:
            extended_headers += 1
            if size > _MAX_EXTENDED_BYTES or extended_headers > _MAX_EXTENDED_HEADERS:
                raise _Broken(SkipReason.DAMAGED_ARCHIVE)
            extended.update(_records(header, read_at(offset, size)))
        elif header.type not in _IGNORED:
            if header.type == tarfile.GNUTYPE_SPARSE:
                offset += _sparse_map_bytes(read_at, offset, block)
            yield _Entry(header, extended, offset, size)
            extended, extended_headers = {}, 0
        offset += -(-size // BLOCK) * BLOCK


def _block(read_at: ReadAt, offset: int) -> bytes | None:
    """The header block at an offset, None at the end of the tar. Raises _Broken."""
    block = read_at(offset, BLOCK)
    if len(block) < BLOCK:
        raise _Broken(SkipReason.TRUNCATED_ARCHIVE)
    return block if any(block) else None


def _header(block: bytes, extended: Mapping[str, bytes]) -> tuple[tarfile.TarInfo, int]:
    """A parsed header block, and the size of the data that follows it. Raises _Broken."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        return header, _size(header, extended)
    except (tarfile.HeaderError, ValueError):
        raise _Broken(SkipReason.DAMAGED_ARCHIVE) from None


def _size(header: tarfile.TarInfo, extended: Mapping[str, bytes]) -> int:
    """Bytes of data after the header. Raises ValueError for a size that no file has."""
    if header.type in _WITHOUT_DATA:
        return 0
    size = int(extended.get("size", header.size))
    if not 0 <= size < 2**62:
        raise ValueError("size")
    return size


def _skip_reason(entry: _Entry) -> SkipReason | None:
    """Why an entry is not listed.

    None for files, which those of an unknown type are too, as for tar itself; also for folders, which are not
    counted.
    """
    kind = entry.header.type
    if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        return SkipReason.LINK_IN_ARCHIVE
    if kind == tarfile.GNUTYPE_SPARSE or (_SPARSE in entry.extended and kind != tarfile.DIRTYPE):
        return SkipReason.SPARSE_FILE_IN_ARCHIVE
    return SkipReason.NO_REGULAR_FILE if kind in _SPECIAL else None


def _name(entry: _Entry) -> str:
    return as_text(entry.extended.get("path") or entry.header.name.encode("utf-8", "surrogateescape"))


def _records(header: tarfile.TarInfo, data: bytes) -> dict[str, bytes]:
    """What the data of an extended header say of the entry that follows."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0]}
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
        if key in (b"path", b"size"):
            records[key.decode("ascii")] = value
        elif key.startswith(_SPARSE.encode()):
            # One key says that the file is sparse: there may be any number of them.
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
    """The bytes of a member. Raises RejectedImage where it is cut, or larger than MAX_SOURCE_BYTES."""
    if size_bytes > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{size_bytes} bytes, the limit is {MAX_SOURCE_BYTES}")
    data = read_at(offset, size_bytes)
    if len(data) < size_bytes:
        raise RejectedImage("truncated", f"the archive ends after {len(data)} of {size_bytes} bytes")
    return data
