"""What the name of a file or of an archive's member says before anything of it is read."""

import re
from typing import Final, Literal

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.formats import IMAGE_SUFFIXES, SNIFFED_BYTES, is_image_head
from pneumonia_core.storage.ranges import StoredFile, read_range

NameClass = Literal["image", "look inside", "archive", "packed file of another kind", "hidden", "no image"]
ARCHIVE_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")
# Notes, tables, code, films: of these none is a radiograph. Whatever has another suffix may be one, and is
# looked into: scan.IMA, IMG.0001a, x.jfif, `Thorax p.a. 2026-01-31`.
_NO_IMAGE: Final = (
    "txt csv tsv json jsonl ndjson xml xsd yaml yml toml ini cfg conf log lock md rst tex html htm css eml msg",
    "pdf rtf doc docx xls xlsx ppt pptx odt ods odp",
    "py pyc ipynb js java class cpp hpp sh bat cmd ps1 sql",
    "parquet arrow feather avro orc npy npz pkl pickle h5 hdf5 onnx keras db sqlite sqlite3 mdb accdb",
    "md5 sha1 sha256 sha512 pem crt",
    "mp3 wav mp4 avi mov mkv wmv mpg mpeg webm exe dll so msi jar lnk url ttf",
)
# Packed in ways that we do not open: one file, of which the rest of the name tells what it is, or many.
_ONE_PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst"})
_PACKED: Final = _ONE_PACKED | {".7z", ".rar", ".tbz", ".tbz2", ".txz", ".tzst", ".iso", ".dmg"}
_NO_IMAGE_SUFFIXES: Final = frozenset(f".{suffix}" for line in _NO_IMAGE for suffix in line.split())
_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX"})
# What lists the files of a disc, and is a DICOM file itself.
_DICOM_INDEX: Final = "dicomdir"
_SUFFIX = re.compile(r"\.[^./]+$")


def classify_name(name: str) -> NameClass:
    """What a file of this name, without its folders, may be; one with an unusual suffix, or none, is to be looked into:
    DICOM files are often named by their UID, 1.2.840.113619.2.55."""
    if name.startswith(".") or name in _SKIPPED_FOLDERS:
        return "hidden"
    lower = name.lower()
    if lower == _DICOM_INDEX:
        return "no image"
    if lower.endswith(ARCHIVE_SUFFIXES):
        return "archive"
    found = _SUFFIX.search(lower)
    suffix = found[0] if found else ""
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in _ONE_PACKED and classify_name(name[: -len(suffix)]) == "no image":
        return "no image"
    if suffix in _PACKED:
        return "packed file of another kind"
    return "no image" if suffix in _NO_IMAGE_SUFFIXES else "look inside"


def classify_path(path: str) -> NameClass:
    """As `classify_name`, of a path with folders, as in a bucket or an archive: a hidden folder hides all in it."""
    *folders, name = path.split("/")
    for folder in folders:
        if folder in _SKIPPED_FOLDERS or (folder.startswith(".") and folder not in (".", "..")):
            return "hidden"
    return classify_name(name)


def looks_like_image(stored: StoredFile) -> bool:
    """Whether a file begins as an image does. One that cannot be read may be an image: it becomes a row that says why it
    could not be read."""
    try:
        return is_image_head(read_range(stored.uri, 0, SNIFFED_BYTES))
    except RejectedImage:
        return True
