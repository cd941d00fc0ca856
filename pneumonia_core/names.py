"""What the name of a file or of an archive's member says before anything of it is read."""

import re
from typing import Final, Literal

from pneumonia_core.labels import IMAGE_SUFFIXES

Verdict = Literal["image", "look inside", "archive", "hidden", "no image"]

ARCHIVE_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")
SNIFFED_BYTES: Final = 512
_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX"})
# DICOM files are often named by their UID: 1.2.840.113619.2.55 has no suffix.
_SUFFIX = re.compile(r"\.(?!\d+$)[^./]+$")


def judge_name(name: str) -> Verdict:
    """What a file of this name, without its folders, may be; one without a suffix is to be looked into."""
    if name.startswith(".") or name in _SKIPPED_FOLDERS:
        return "hidden"
    lower = name.lower()
    if lower.endswith(ARCHIVE_SUFFIXES):
        return "archive"
    suffix = _SUFFIX.search(lower)
    if suffix is None:
        return "look inside"
    return "image" if suffix[0] in IMAGE_SUFFIXES else "no image"


def judge_path(path: str) -> Verdict:
    """As `judge_name`, of a path with folders, as in a bucket or an archive: a hidden folder hides all in it."""
    *folders, name = path.split("/")
    for folder in folders:
        if folder in _SKIPPED_FOLDERS or (folder.startswith(".") and folder not in (".", "..")):
            return "hidden"
    return judge_name(name)


def as_text(name: bytes) -> str:
    """A name as it can stand in a table: what is no UTF-8 is shown escaped."""
    return name.decode("utf-8", "backslashreplace")
