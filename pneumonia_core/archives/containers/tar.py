"""Members of a tar, from its headers alone, and the bytes of one. Nothing is unpacked, and nothing large is
held."""

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pneumonia_core.archives.containers.tar_entries import (
    CONTINUED,
    FOLDERS,
    SPARSE,
    SPECIAL,
    BrokenTar,
    Entry,
    LastRead,
    entries,
    entry_name,
    link_name,
)
from pneumonia_core.archives.entries import Member, ReadAt, TarCompression, TarEntry, tar_member_version
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile

# So many of the last files may be what a hard link names: some 50 MB.
_LINKABLE: Final = 2**16
# A compressed tar is read again from its beginning for a hard link, and for not more of them than this.
_MOST_COMPRESSED_LINKS: Final = 64


def tar_members(
    tar: StoredFile, compression: TarCompression | None, read_at: ReadAt, skipped: Counter[SkipReason]
) -> Iterator[Member]:
    """The regular files of a tar in their order. A tar that is cut or damaged gives those before that place,
    and is counted.

    `read_at` is asked for growing offsets only, in the inflated stream of a compressed tar.
    """
    read_at = LastRead(read_at)
    links = _HardLinks(_MOST_COMPRESSED_LINKS if compression else None)
    try:
        for entry in entries(read_at):
            if entry.header.type == tarfile.LNKTYPE and not entry.size_bytes:
                target = links.find(entry)
                if target is None:
                    skipped[SkipReason.LINK_IN_ARCHIVE] += 1
                else:
                    # The bytes of an earlier file: a compressed tar does not give them once more.
                    head = target.head if compression is None else _unknown
                    yield replace(target, name=entry_name(entry), head=head)
                continue
            reason = _skip_reason(entry)
            if reason is not None:
                skipped[reason] += 1
            elif entry.header.type not in FOLDERS:
                member = _member(entry, tar, compression, read_at)
                yield member
                links.add(member)
    except BrokenTar as broken:
        skipped[broken.reason] += 1


class _HardLinks:
    """The files that a hard link may name: the last ones of the tar. A link has the bytes of its file.

    At most `limit` links are found, None for any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._left = limit
        self._files: dict[str, Member] = {}

    def add(self, member: Member) -> None:
        self._files[_plain(member.name)] = member
        if len(self._files) > _LINKABLE:
            del self._files[next(iter(self._files))]

    def find(self, link: Entry) -> Member | None:
        target = self._files.get(_plain(link_name(link)))
        if target is None or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        return target


def _unknown(_count: int) -> None:
    """The first bytes of what is not read."""


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _member(entry: Entry, tar: StoredFile, compression: TarCompression | None, read_at: ReadAt) -> Member:
    offset, size_bytes = entry.offset, entry.size_bytes
    return Member(
        name=entry_name(entry),
        version=tar_member_version(tar.version, offset),
        offset=offset,
        size_bytes=size_bytes,
        source=TarEntry(tar.uri, tar.version, offset, size_bytes, compression),
        head=lambda count: read_at(offset, min(count, size_bytes)),
    )


def _skip_reason(entry: Entry) -> SkipReason | None:
    """Why an entry is not listed.

    None for files, which those of an unknown type are too, as for tar itself; also for folders, which are not
    counted.
    """
    kind = entry.header.type
    if kind == tarfile.SYMTYPE:
        return SkipReason.LINK_IN_ARCHIVE
    if kind == CONTINUED:
        return SkipReason.PART_OF_ARCHIVE
    if kind == tarfile.GNUTYPE_SPARSE or (SPARSE in entry.extended and kind not in FOLDERS):
        return SkipReason.SPARSE_FILE_IN_ARCHIVE
    return SkipReason.NO_REGULAR_FILE if kind in SPECIAL else None


def read_tar_member(read_at: ReadAt, offset: int, size_bytes: int) -> bytes:
    """The bytes of a member. Raises RejectedImage where it is cut, or larger than MAX_SOURCE_BYTES."""
    if size_bytes > MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"{size_bytes} bytes, the limit is {MAX_SOURCE_BYTES}")
    data = read_at(offset, size_bytes)
    if len(data) < size_bytes:
        raise RejectedImage("truncated", f"the archive ends after {len(data)} of {size_bytes} bytes")
    return data
