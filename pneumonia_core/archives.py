"""Archives of images: what is in them, in a fixed order, and the bytes of each image."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pneumonia_core.errors import InvalidInput, RejectedImage
from pneumonia_core.images import MAX_SOURCE_BYTES, sniff_format
from pneumonia_core.labels import IMAGE_SUFFIXES
from pneumonia_core.places import open_place

_MANIFEST_SUFFIXES: Final = (".parquet", ".csv")
_SKIPPED_FOLDERS: Final = frozenset({"__MACOSX"})


@dataclass(frozen=True)
class ListedImage:
    """One image as listed: `version` changes when the content does."""

    uri: str
    version: str
    size_bytes: int


def open_archive(text: str) -> str:
    """The canonical URI of an archive that a user names. Raises InvalidInput where there is none."""
    place = open_place(text)
    if not Path(place.path).exists():
        raise InvalidInput(f"{text!r}: no such file or folder. Check the spelling of the archive.")
    return place.uri


def check_disjoint(archives: list[str]) -> None:
    """Raise InvalidInput where one archive lies in another: its images would be listed twice."""
    ordered = sorted(archive.rstrip("/") + "/" for archive in archives)
    for one, other in itertools.pairwise(ordered):
        if other.startswith(one):
            raise InvalidInput(
                f"the archive {other.rstrip('/')} lies in {one.rstrip('/')}: name each image's archive once."
            )


def list_archive(archive: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    """The images of an archive in a fixed order; what is skipped is counted by kind in `skipped`."""
    root = archive.removeprefix("file://")
    if root.endswith(_MANIFEST_SUFFIXES):
        yield from _manifest(root)
    elif Path(root).is_file():
        yield _listed(root, os.stat(root))  # noqa: PTH116 - a plain path is the raw name
    else:
        yield from _walk(root, skipped)


def read_image_bytes(uri: str) -> bytes:
    """The bytes of an image. Raises RejectedImage with a reason of the stage `read`."""
    path = uri.removeprefix("file://")
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a plain path is the raw name
            size = os.fstat(file.fileno()).st_size
            if size > MAX_SOURCE_BYTES:
                raise RejectedImage("too_large", f"{size} bytes, the limit is {MAX_SOURCE_BYTES}")
            return file.read()
    except FileNotFoundError:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    except PermissionError:
        raise RejectedImage("forbidden", "no permission to read it") from None
    except TimeoutError:
        raise RejectedImage("timeout", "the storage did not answer in time") from None
    except OSError as error:
        raise RejectedImage("unreadable", f"the storage gave error number {error.errno}") from None


def _manifest(path: str) -> Iterator[ListedImage]:
    """The images that a table names in its column `uri`, in its order; one that is absent is listed too,
    and becomes a row that says so."""
    for uri in _manifest_uris(path):
        image = uri.removeprefix("file://")
        if not image.startswith("/"):
            image = f"{path.rpartition('/')[0]}/{image}"
        try:
            yield _listed(image, os.stat(image))  # noqa: PTH116
        except OSError:
            yield ListedImage(f"file://{image}", "absent", 0)


def _manifest_uris(path: str) -> Iterator[str]:
    try:
        if path.endswith(".parquet"):
            batches = pq.ParquetFile(path).iter_batches(columns=["uri"])
        else:
            batches = pa.csv.open_csv(path)
        for batch in batches:
            yield from batch.column("uri").to_pylist()
    except (pa.ArrowInvalid, KeyError) as error:
        raise InvalidInput(f"{path!r}: a manifest is a Parquet or CSV table with a column `uri`.") from error


def _walk(folder: str, skipped: Counter[str]) -> Iterator[ListedImage]:
    """Depth first, names in byte order, so that every listing of the same folder has the same order."""
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError:
        skipped["folder that cannot be opened"] += 1
        return
    for entry in ordered:
        if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
            skipped["hidden"] += 1
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, skipped)
        else:
            yield from _file(entry, skipped)


def _file(entry: "os.DirEntry[str]", skipped: Counter[str]) -> Iterator[ListedImage]:
    try:
        status = entry.stat()
    except OSError:
        skipped["broken link"] += 1
        return
    if not S_ISREG(status.st_mode):
        skipped["no regular file"] += 1
    elif not _may_be_image(entry):
        skipped["no image"] += 1
    else:
        yield _listed(entry.path, status)


def _may_be_image(entry: "os.DirEntry[str]") -> bool:
    """By suffix; a file without one is looked into."""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - no Path for each of 10^8 files
    if suffix:
        return suffix in IMAGE_SUFFIXES
    try:
        with open(entry.path, "rb") as file:  # noqa: PTH123
            sniff_format(file.read(512))
    except (OSError, RejectedImage):
        return False
    return True


def _listed(path: str, status: os.stat_result) -> ListedImage:
    # Names that are no UTF-8 cannot stand in a table: they are shown escaped, and cannot be opened by that.
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return ListedImage(f"file://{text}", f"{status.st_size}-{status.st_mtime_ns}", status.st_size)
