"""What a file may be: by its name, or by its first bytes where the name does not tell."""

import re
from enum import Enum, auto
from typing import Final

from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.formats import IMAGE_SUFFIXES, SNIFFED_BYTES, is_image_head
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.ranges import read_range


class NameClass(Enum):
    """What a file that is not skipped may be, by its name. The first bytes of an UNKNOWN one tell."""

    IMAGE = auto()
    ARCHIVE = auto()
    UNKNOWN = auto()


FileClass = NameClass | SkipReason

ARCHIVE_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")
# Notes, tables, code, films: none of these is a radiograph. A file with any other suffix may be one, so its
# first bytes are read: scan.IMA, IMG.0001a, x.jfif, `Thorax p.a. 2026-01-31`.
_NO_IMAGE: Final = (
    "txt csv tsv json jsonl ndjson xml xsd yaml yml toml ini cfg conf log lock md rst tex html htm css",
    "pdf rtf doc docx xls xlsx ppt pptx odt ods odp eml msg",
    "py pyc ipynb js java class cpp hpp sh bat cmd ps1 sql",
    "parquet arrow feather avro orc npy npz pkl pickle h5 hdf5 onnx keras db sqlite sqlite3 mdb accdb",
    "md5 sha1 sha256 sha512 pem crt",
    "mp3 wav mp4 avi mov mkv wmv mpg mpeg webm exe dll so msi jar lnk url ttf",
)
# Compression that this program does not open. The first four pack one file, and the rest of the name tells
# what it is; the others pack many.
_ONE_PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst"})
_PACKED: Final = _ONE_PACKED | {".7z", ".rar", ".tbz", ".tbz2", ".txz", ".tzst", ".iso", ".dmg"}
_NO_IMAGE_SUFFIXES: Final = frozenset(f".{suffix}" for line in _NO_IMAGE for suffix in line.split())
# Pixels of medical formats whose header is another file, or that are packed: their content does not tell.
_MEDICAL_SUFFIXES: Final = frozenset(
    f".{suffix}"
    for suffix in (
        "nii",
        "img",
        "hdr",
        "raw",
        "zraw",
        "mha",
        "mhd",
        "nrrd",
        "nhdr",
        "mnc",
        "mgh",
        "mgz",
        "rec",
    )
)
_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX"})
# The index of a disc (DICOM PS3.10, 8.6) is a DICOM file itself.
_DICOM_INDEX: Final = "dicomdir"
_SUFFIX: Final = re.compile(r"\.[^./]+$")


def classify_name(name: str) -> FileClass:
    """What a file of this name, without its folders, may be.

    A name with an unusual suffix or none is UNKNOWN: DICOM files are often named by their UID,
    1.2.840.113619.2.55.
    """
    if name.startswith(".") or name in _SKIPPED_FOLDERS:
        return SkipReason.HIDDEN
    lower = name.lower()
    if lower == _DICOM_INDEX:
        return SkipReason.NO_IMAGE
    if lower.endswith(ARCHIVE_SUFFIXES):
        return NameClass.ARCHIVE
    suffix = _suffix(lower)
    if suffix in IMAGE_SUFFIXES:
        return NameClass.IMAGE
    if suffix in _ONE_PACKED and classify_name(name[: -len(suffix)]) is SkipReason.NO_IMAGE:
        return SkipReason.NO_IMAGE
    if suffix in _ONE_PACKED and _suffix(lower[: -len(suffix)]) in _MEDICAL_SUFFIXES:
        return SkipReason.MEDICAL_FORMAT
    if suffix in _PACKED:
        return SkipReason.OTHER_COMPRESSION
    return SkipReason.NO_IMAGE if suffix in _NO_IMAGE_SUFFIXES else NameClass.UNKNOWN


def _suffix(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[0] if found else ""


def classify_path(path: str) -> FileClass:
    """`classify_name` of a path with folders, as in a bucket or a tar: a hidden folder hides all in it."""
    *folders, name = path.split("/")
    for folder in folders:
        if folder in _SKIPPED_FOLDERS or (folder.startswith(".") and folder not in (".", "..")):
            return SkipReason.HIDDEN
    return classify_name(name)


def classify_head(head: bytes | None, name: str) -> FileClass:
    """What a file of this name with these first bytes is.

    A file whose first bytes cannot be read (None) counts as an image: it gets a row that says why it cannot
    be read.
    """
    if head is None or is_image_head(head):
        return NameClass.IMAGE
    return SkipReason.MEDICAL_FORMAT if _suffix(name.lower()) in _MEDICAL_SUFFIXES else SkipReason.NO_IMAGE


def classify_content(stored: StoredFile) -> FileClass:
    """What a file is by its first bytes, which are read here."""
    try:
        return classify_head(read_range(stored.uri, 0, SNIFFED_BYTES), stored.uri)
    except RejectedImage:
        return classify_head(None, stored.uri)
