"""Offsets of members, where the directory of a zip tells others: zips in parts, and of macOS's Finder."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pneumonia_core.archives.containers.zip_directories import LOCAL_MAGIC, Directory, first_member
from pneumonia_core.archives.containers.zip_records import (
    LOCAL_HEADER,
    LOCAL_SLACK,
    MAX_DESCRIPTOR,
    SIZES_FOLLOW,
    Record,
    descriptor_bytes,
    member_name,
)
from pneumonia_core.archives.entries import ReadAt
from pneumonia_core.archives.skipped import SkipReason

_WRAP: Final = 2**32


def records_in_parts(
    read_at: ReadAt, directory: Directory, records: Iterator[Record], skipped: Counter[SkipReason]
) -> Iterator[Record]:
    """The records of a zip that was written in parts: all of joined parts, else those that begin in this one.

    Offsets count from the beginning of a part, which may be anywhere: in joined parts, each member follows
    the one before. Those of the last part alone need no shift.
    """
    if not directory.shift:
        others = 0
        for record in records:
            if record.disk == directory.disk:
                yield record
            else:
                others = 1
        skipped[SkipReason.PART_OF_ARCHIVE] += others
        return
    at = first_member(read_at)
    for record in records:
        block = read_at(at, LOCAL_HEADER.size + LOCAL_SLACK)
        if len(block) < LOCAL_HEADER.size or not block.startswith(LOCAL_MAGIC):
            skipped[SkipReason.PART_OF_ARCHIVE] += 1
            return
        _, _, flags, _, _, _, _, _, _, name_length, extra_length = LOCAL_HEADER.unpack_from(block)
        name, extra = block[LOCAL_HEADER.size :][:name_length], block[LOCAL_HEADER.size + name_length :]
        if member_name(name, flags, extra[:extra_length]) != record.name:
            # The first parts are missing.
            skipped[SkipReason.PART_OF_ARCHIVE] += 1
            return
        yield replace(record, offset=at)
        at += LOCAL_HEADER.size + name_length + extra_length + record.stored_bytes
        if flags & SIZES_FOLLOW:
            at += descriptor_bytes(read_at(at, MAX_DESCRIPTOR + 4))


def lost_wraps(directory: Directory, records: Iterator[Record]) -> int:
    """How often 4 GiB are missing before the directory, although each offset is above the one before.

    So often a member of 4 GiB or more, whose size has lost its upper bits, is in the zip.
    """
    end = 0
    for record in _rising(records):
        end = record.offset + record.stored_bytes
    return (directory.start - end) // _WRAP


def _rising(records: Iterator[Record]) -> Iterator[Record]:
    """The records in their order, with offsets that are never below the end of the one before."""
    base = end = 0
    for record in records:
        while base + record.offset < end:
            base += _WRAP
        end = base + record.offset + record.stored_bytes
        yield replace(record, offset=base + record.offset)


def unwrapped(read_at: ReadAt, records: Iterator[Record], lost: int) -> Iterator[Record]:
    """The records with their true offsets. Where members of 4 GiB hide some, local headers are looked at."""
    base = 0
    for record in _rising(records):
        while lost and not _is_there(read_at, base + record.offset):
            base, lost = base + _WRAP, lost - 1
        yield replace(record, offset=base + record.offset)


def _is_there(read_at: ReadAt, offset: int) -> bool:
    return read_at(offset, len(LOCAL_MAGIC)) == LOCAL_MAGIC
