"""An archive of images: opened, listed in a fixed order, and the bytes of each image.

Nothing is unpacked to disk.
"""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Final

from pneumonia_core.archives.buckets import list_bucket, named_object
from pneumonia_core.archives.classify import classify_named
from pneumonia_core.archives.containers.members import read_member
from pneumonia_core.archives.entries import (
    FetchedImage,
    ImageRef,
    ListedImage,
    Refused,
    TarEntry,
    UnlinkedFile,
    WholeFile,
    ZipEntry,
)
from pneumonia_core.archives.folders import NO_PERMISSION, NO_SUCH_NAME, list_local, opens_locally
from pneumonia_core.archives.manifests import ListingRules, check_manifest, is_manifest, list_manifest
from pneumonia_core.archives.position import Rest
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.archives.tables.table_files import check_not_in_parts, stands_for_parts
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Rejection, Remedy
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.errors import BucketError, CredentialsError, error_text
from pneumonia_core.storage.files import exists
from pneumonia_core.storage.local import read_real_file
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.storage.ranges import read_file, stat_file

_NO_RULES: Final = ListingRules()
_NEITHER: Final = (
    "it is neither an image nor an archive. Give a folder, a bucket, a tar, a zip, an image, or a manifest: "
    "a Parquet or CSV table, in UTF-8 and with commas, that names images in its column `uri`."
)
# What a user can do about a file that is given as the archive and is not opened.
_NOT_TAKEN: Final = {
    SkipReason.OTHER_COMPRESSION: (
        "files packed in this way are not opened. Unpack it to a folder, or pack it again as a zip, .tar, "
        ".tar.gz, .tar.bz2, .tar.xz or .tar.zst."
    ),
    SkipReason.PART_OF_ARCHIVE: (
        "it is a part of an archive that was split. Join the parts in their order (cat NAME.* > NAME, or the "
        "program that split it), and give the whole."
    ),
    SkipReason.MEDICAL_FORMAT: "its format is not read. Convert its images to DICOM, PNG or TIFF.",
    SkipReason.PACKED_IMAGES: (
        "it holds records or arrays, and is not opened. Write its images to files, and give their folder."
    ),
}


def open_archive(text: str, rules: ListingRules = _NO_RULES) -> str:
    """The canonical URI of an archive that a user names.

    Raises InvalidInput where it does not exist or may not be read, PneumoniaError where its storage fails.
    """
    location = open_location(text)
    try:
        place = location.parent if stands_for_parts(location) else location
        found = opens_locally(place.path) if place.is_local else exists(place)
    except OSError as error:
        raise _not_opened(location.uri, error) from error
    except CredentialsError as error:
        raise InvalidInput(
            f"{location.uri}: the archive cannot be opened: {error.text}", error.remedy
        ) from error
    if not found:
        raise InvalidInput(f"{text!r}: no such file or folder. Check the spelling of the archive.")
    if is_manifest(location.uri):
        check_manifest(location.uri, rules)
    else:
        _check_opened(location)
    return location.uri


def named_file(location: Location) -> StoredFile | None:
    """The file of this name; None for a folder or prefix. Raises PneumoniaError where its storage fails."""
    if not location.is_local:
        return named_object(location)
    is_file = os.path.isfile(location.path)  # noqa: PTH113 - a plain path is the raw name
    return stat_file(location.uri) if is_file else None


def _check_opened(location: Location) -> None:
    """Raise InvalidInput for a file that is neither an image nor an archive that is read here, and for the
    folder of a table."""
    stored = named_file(location)
    if stored is None:
        check_not_in_parts(location)
    kind = None if stored is None else classify_named(stored)
    if isinstance(kind, SkipReason):
        raise InvalidInput(f"{location.uri}: {_NOT_TAKEN.get(kind, _NEITHER)}")


def _not_opened(uri: str, error: OSError) -> PneumoniaError:
    text = f"{uri}: the archive cannot be opened ({error_text(error)})."
    # An error without a number is a refusal: a FIFO, or an object that may not be read.
    absent_or_denied = error.errno is None or error.errno in NO_SUCH_NAME | NO_PERMISSION
    if absent_or_denied and not isinstance(error, BucketError):
        return InvalidInput(text)
    return PneumoniaError(text, Remedy.WHEN_STORAGE_ANSWERS)


def check_disjoint(archives: list[str]) -> None:
    """Raise InvalidInput where one archive is inside another: its images would be listed twice."""
    ordered = sorted(archive.rstrip("/") + "/" for archive in archives)
    for one, other in itertools.pairwise(ordered):
        if other.startswith(one):
            raise InvalidInput(
                f"the archive {other.rstrip('/')} is inside {one.rstrip('/')}: name each image's archive "
                "once."
            )


def list_archive(
    archive: str, skipped: Counter[SkipReason], rules: ListingRules = _NO_RULES, after: str | None = None
) -> Iterator[ListedImage]:
    """The images of an archive in a fixed order; `skipped` counts what is left out.

    With `after`, the URI of an image, only those that follow it. Where a tar, a zip or a manifest does not
    have that image any more, all of its images.

    Tars and zips in a folder or bucket are opened as well. Raises PneumoniaError where the storage fails:
    images that are out of reach must not count as gone.
    """
    if is_manifest(archive):
        yield from list_manifest(archive, rules, skipped, after)
    elif (location := Location(archive)).is_local:
        yield from list_local(location.path, skipped, Rest(after))
    else:
        yield from list_bucket(location, skipped, Rest(after))


def read_image_bytes(ref: ImageRef) -> bytes:
    """The bytes of an image, of the version that was listed. Raises RejectedImage."""
    match ref.source:
        case WholeFile():
            return read_file(ref.uri, ref.version)
        case UnlinkedFile(file):
            return read_real_file(Location(file).path, ref.version)
        case TarEntry() | ZipEntry() as entry:
            return read_member(entry)
        case Refused(rejection):
            raise RejectedImage(rejection.reason, rejection.detail)


def fetch_image(ref: ImageRef) -> FetchedImage:
    """An image with its bytes, or with the reason why they cannot be read."""
    try:
        return FetchedImage(ref, read_image_bytes(ref))
    except RejectedImage as rejected:
        return FetchedImage(ref, rejected.rejection)


def fetched_bytes(image: FetchedImage) -> bytes:
    """The bytes of an image, read now if that was left for later. Raises RejectedImage."""
    match image.content:
        case None:
            return read_image_bytes(image.ref)
        case Rejection(reason, detail):
            raise RejectedImage(reason, detail)
        case content:
            return content
