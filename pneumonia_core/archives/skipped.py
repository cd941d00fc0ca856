"""Why a listing leaves something out: a closed list of codes, and which of them may hide images."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Self


class SkipReason(StrEnum):
    """Why something in an archive is not listed.

    The code is what run.json and the result of a job hold, `text` what a person reads after a number.
    `may_hide_images`: an image may be in it that has no row, and no one will miss it.
    """

    text: str
    may_hide_images: bool

    def __new__(cls, code: str, text: str, may_hide_images: bool = False) -> Self:
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.text = text
        reason.may_hide_images = may_hide_images
        return reason

    HIDDEN = "hidden", "hidden"
    SYSTEM_FOLDER = "system_folder", "thumbnails, recycle bin or snapshot of a system"
    NO_IMAGE = "no_image", "no image"
    NO_REGULAR_FILE = "no_regular_file", "no regular file"
    REPEATED_IN_MANIFEST = "repeated_in_manifest", "named twice in a manifest"
    IN_EARLIER_ARCHIVE = "in_earlier_archive", "listed by an earlier archive"
    ROW_WITHOUT_URI = "row_without_uri", "row of a manifest without a URI", True
    MEDICAL_FORMAT = "medical_format", "file of a medical format that is not read", True
    PACKED_IMAGES = "packed_images", "file that may pack images in records, and is not opened", True
    PART_OF_ARCHIVE = "part_of_archive", "part of an archive that was split", True
    OTHER_COMPRESSION = "other_compression", "packed file of another kind", True
    TRUNCATED_ARCHIVE = "truncated_archive", "archive that is cut short", True
    DAMAGED_ARCHIVE = "damaged_archive", "archive that is damaged", True
    UNOPENED_ARCHIVE = "unopened_archive", "archive that cannot be opened", True
    COLD_ARCHIVE = "cold_archive", "archive in cold storage", True
    NESTED_ARCHIVE = "nested_archive", "archive in an archive", True
    LINK_IN_ARCHIVE = "link_in_archive", "link in an archive", True
    SPARSE_FILE_IN_ARCHIVE = "sparse_file_in_archive", "sparse file in an archive", True
    UNOPENED_FOLDER = "unopened_folder", "folder that cannot be opened", True
    LINK_TO_FOLDER_ELSEWHERE = "link_to_folder_elsewhere", "link to a folder elsewhere", True
    BROKEN_LINK = "broken_link", "broken link", True


SkipCounts = Mapping[str, int] | Mapping[SkipReason, int]
# Before there were codes, run.json held the texts.
_BY_CODE_OR_TEXT = {key: reason for reason in SkipReason for key in (reason.value, reason.text)}


def skip_text(code: str) -> str:
    """The text of a code; a code that this version does not know stands for itself."""
    reason = _BY_CODE_OR_TEXT.get(code)
    return reason.text if reason is not None else code


def may_hide_images(skipped: SkipCounts) -> dict[str, int]:
    """Those of the counts by code that images may be in. What is unknown may."""
    return {
        code: number
        for code, number in skipped.items()
        if (reason := _BY_CODE_OR_TEXT.get(code)) is None or reason.may_hide_images
    }


def describe_skipped(skipped: SkipCounts) -> str:
    """The counts by code in one line, the highest first: `12 hidden, 1 archive that is cut short`."""
    most_first = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {skip_text(code)}" for code, number in most_first)
