"""What a file may be: by its name, or by its first bytes where the name does not tell."""

import re
from enum import Enum, auto
from typing import Final

from pneumonia_core.archives.packing.heads import (
    COMPRESSIONS,
    FIRST_BLOCK_BYTES,
    compressed_tar,
    is_orthanc_attachment,
    packing_of,
)
from pneumonia_core.archives.packing.tables import has_binary_column, holds_image_within
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


def _suffixes(*lines: str) -> frozenset[str]:
    return frozenset(f".{suffix}" for line in lines for suffix in line.split())


ARCHIVE_SUFFIXES: Final = (
    *(".zip", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"),
    *(".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz"),
)
# Notes, tables, code, films: none of these is a radiograph. A file with any other suffix may be one, so its
# first bytes are read: scan.IMA, IMG.0001a, x.jfif, `Thorax p.a. 2026-01-31`.
_NO_IMAGE_SUFFIXES: Final = _suffixes(
    "txt csv tsv json jsonl ndjson xml xsd yaml yml toml ini cfg conf log lock md rst tex html htm css",
    "pdf rtf doc docx docm xls xlsx xlsm xlsb ppt pptx pptm odt ods odp odg epub eml msg",
    "py pyc ipynb js java class cpp hpp sh bat cmd ps1 sql",
    "avro orc pkl pickle onnx keras db sqlite sqlite3 accdb",
    "md5 sha1 sha256 sha512 pem crt",
    "mp3 wav mp4 avi mov mkv wmv mpg mpeg webm exe dll so msi jar war apk whl lnk url ttf",
)
# Compression of one file: the rest of the name tells what it is.
_COMPRESSED_SUFFIXES: Final = _suffixes("gz bz2 xz zst")
# What these suffixes promise counts where the first bytes say nothing else: they are packed in ways that this
# program does not open, or hold arrays and records, which may be images.
_PACKED_SUFFIXES: Final = _suffixes("7z rar iso dmg z lz lz4 lzma lzo br cab arj lzh lha ace wim cpio")
_ARRAY_SUFFIXES: Final = _suffixes("npy npz h5 hdf5 mat tfrecord tfrecords tfrec lmdb lance mds beton")
_PART_OF_ARCHIVE: Final = re.compile(
    r"\.(?:tar|tgz|tbz2?|txz|tzst|zip|7z|rar|gz|bz2|xz|zst)\.(?:\d{2,4}|[a-z]{2}|a[a-z]{2})$|\.[zr]\d\d$"
)
# Pixels of medical formats whose header is another file, or that are packed: their content does not tell.
_MEDICAL_SUFFIXES: Final = _suffixes("nii img hdr raw zraw mha mhd nrrd nhdr mnc mgh mgz rec")
# The index of a disc (DICOM PS3.10, 8.6) is a DICOM file itself.
_DICOM_INDEX: Final = "dicomdir"
_SUFFIX: Final = re.compile(r"\.[^./]+$")
_SLASHES: Final = re.compile(r"[/\\]")
_MACOS_FOLDERS: Final = frozenset({"__MACOSX"})
# Thumbnails, recycle bins and snapshots of Synology (@eaDir), QNAP, Windows, macOS, NetApp, TrueNAS, Samba,
# Buffalo, Netgear and Nextcloud. Folders of Linux desktops and others begin with a dot.
_SYSTEM_FOLDER: Final = re.compile(
    r"@eadir|@recycle|@recently-snapshot|@sharebin|@tmp|@syno\w*|@gmt-[\d.-]+|[#$~]snapshot|#recycle|~snapshot"
    r"|\$recycle\.bin|recycler|recycled|recycle bin.*|trashbox|files_trashbin|files_versions"
    r"|system volume information|network trash folder|temporary items|thevolumesettingsfolder",
    re.IGNORECASE,
)


def classify_name(name: str) -> FileClass:
    """What a file of this name, without its folders, may be.

    A name with an unusual suffix or none is UNKNOWN: DICOM files are often named by their UID,
    1.2.840.113619.2.55.
    """
    if name.startswith("."):
        return SkipReason.HIDDEN
    lower = name.lower()
    if lower == _DICOM_INDEX:
        return SkipReason.NO_IMAGE
    if lower.endswith(ARCHIVE_SUFFIXES):
        return NameClass.ARCHIVE
    suffix = _suffix(lower)
    if suffix in IMAGE_SUFFIXES:
        return NameClass.IMAGE
    if suffix in _COMPRESSED_SUFFIXES:
        return _classify_compressed(name[: -len(suffix)])
    return SkipReason.NO_IMAGE if suffix in _NO_IMAGE_SUFFIXES else NameClass.UNKNOWN


def _classify_compressed(name: str) -> FileClass:
    """What a compressed file of this name, without the suffix of the compression, may be."""
    if _suffix(name.lower()) in _MEDICAL_SUFFIXES:
        return SkipReason.MEDICAL_FORMAT
    kind = classify_name(name)
    return SkipReason.OTHER_COMPRESSION if kind in (NameClass.IMAGE, NameClass.ARCHIVE) else kind


def _suffix(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[0] if found else ""


def classify_folder(name: str) -> SkipReason | None:
    """Why a folder of this name is left out with all that is in it; None where it is not."""
    if name in _MACOS_FOLDERS or (name.startswith(".") and name not in (".", "..")):
        return SkipReason.HIDDEN
    return SkipReason.SYSTEM_FOLDER if _SYSTEM_FOLDER.fullmatch(name) else None


def classify_path(path: str) -> FileClass:
    """`classify_name` of a path with folders, as in a bucket or a tar: a hidden folder hides all in it.

    Zips of Windows may have backslashes between folders.
    """
    *folders, name = _SLASHES.split(path)
    for folder in folders:
        if (reason := classify_folder(folder)) is not None:
            return reason
    return classify_name(name)


def classify_head(head: bytes | None, name: str) -> FileClass:
    """What a file of this name with these first bytes is.

    A file whose first bytes cannot be read (None) counts as an image: it gets a row that says why it cannot
    be read. A compressed file may hold a tar, which its first bytes do not tell.
    """
    packing = None if head is None else packing_of(head)
    if packing in ("zip", "tar"):
        return NameClass.ARCHIVE
    if packing is not None:
        return SkipReason.OTHER_COMPRESSION
    if head is None or is_image_head(head):
        return NameClass.IMAGE
    promised = _by_suffix(name.lower())
    if promised is SkipReason.NO_IMAGE and (is_orthanc_attachment(head) or holds_image_within(head)):
        return SkipReason.PACKED_IMAGES
    return promised


def _by_suffix(name: str) -> SkipReason:
    """What the name promises of a file whose first bytes say nothing."""
    suffix = _suffix(name)
    if suffix in _MEDICAL_SUFFIXES:
        return SkipReason.MEDICAL_FORMAT
    if suffix in _PACKED_SUFFIXES | _COMPRESSED_SUFFIXES:
        return SkipReason.OTHER_COMPRESSION
    if _PART_OF_ARCHIVE.search(name):
        return SkipReason.PART_OF_ARCHIVE
    return SkipReason.PACKED_IMAGES if suffix in _ARRAY_SUFFIXES else SkipReason.NO_IMAGE


def classify_content(stored: StoredFile) -> FileClass:
    """What a file is by its first bytes, which are read here."""
    try:
        head = read_range(stored.uri, 0, SNIFFED_BYTES)
        kind = classify_head(head, stored.uri)
        if kind is SkipReason.OTHER_COMPRESSION and packing_of(head) in COMPRESSIONS:
            first = read_range(stored.uri, 0, FIRST_BLOCK_BYTES)
            return kind if compressed_tar(first) is None else NameClass.ARCHIVE
        if kind is SkipReason.NO_IMAGE and has_binary_column(stored, head):
            return SkipReason.PACKED_IMAGES
    except RejectedImage:
        return classify_head(None, stored.uri)
    return kind


def classify_named(stored: StoredFile) -> FileClass:
    """What a file is that a user names as the archive, whatever its name. A picture may have any."""
    name = stored.uri.rpartition("/")[2].lstrip(".")
    by_name = classify_name(name)
    if by_name in (NameClass.IMAGE, NameClass.ARCHIVE):
        return by_name
    if _PART_OF_ARCHIVE.search(name.lower()):
        return SkipReason.PART_OF_ARCHIVE
    by_content = classify_content(stored)
    return by_content if by_name is NameClass.UNKNOWN or by_content is NameClass.IMAGE else by_name
