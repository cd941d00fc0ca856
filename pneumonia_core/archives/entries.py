"""One image of an archive: as it is listed, where its bytes are, the request to read it, and the answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

from pneumonia_core.errors import PneumoniaError, Rejection, Remedy

TarCompression = Literal["gz", "bz2", "xz", "zst"]
# `read_at(offset, count)` gives the bytes of a container, fewer than `count` at its end.
ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class WholeFile:
    """The file at the image's own URI."""


@dataclass(frozen=True)
class UnlinkedFile:
    """A local `file` (its URI) that a manifest names. It is read only while no part of its path is a link."""

    file: str


@dataclass(frozen=True)
class TarEntry:
    """`size_bytes` bytes from `offset` on in a tar; of a compressed tar, in what it inflates to.

    `tar_version` is that of the tar as listed: in any other version, another image may be at the offset.
    """

    file: str
    tar_version: str
    offset: int
    size_bytes: int
    compression: TarCompression | None = None


@dataclass(frozen=True)
class ZipEntry:
    """A member of a zip. `offset` is that of its local header, `crc32` that of the inflated bytes."""

    file: str
    offset: int
    stored_bytes: int
    size_bytes: int
    crc32: int
    is_deflated: bool


@dataclass(frozen=True)
class Refused:
    """An image that no one reads: the listing knows already why."""

    rejection: Rejection


ByteSource = WholeFile | UnlinkedFile | TarEntry | ZipEntry | Refused

ENCRYPTED: Final = Refused(Rejection("unsupported", "an encrypted member of an archive"))
UNKNOWN_METHOD: Final = Refused(Rejection("unsupported", "compressed by a method other than deflate"))
CUT_SHORT: Final = Refused(Rejection("truncated", "the archive ends before the member does"))
NOT_ALLOWED: Final = Refused(Rejection("forbidden", "the manifest may not name it: no allowed prefix has it"))
# A fixed text: what the manifest says may hold a secret.
OTHER_FORM: Final = Refused(
    Rejection(
        "unsupported",
        "named by another scheme or form: write s3://BUCKET/KEY, gs://, abfs:// or file://, under an allowed "
        "prefix",
    )
)


@dataclass(frozen=True)
class Member:
    """A file in a tar or zip, image or not. `name` is its path there; `version` changes when the content
    does.

    `head(count)` reads its first bytes, up to `count`; None where they cannot be known.
    """

    name: str
    version: str
    offset: int
    size_bytes: int
    source: TarEntry | ZipEntry | Refused
    head: Callable[[int], bytes | None]


@dataclass(frozen=True)
class ListedImage:
    """One image as listed.

    `version` changes when the content does. `carried` is a JSON object of the manifest's columns that go to
    the table.
    """

    uri: str
    version: str
    size_bytes: int
    source: ByteSource
    carried: str | None = None


@dataclass(frozen=True)
class ImageRef:
    """The request to read one image. `size_bytes` is 0 where the listing did not know it.

    A file that is not at `version` any more is not read; None reads whatever is there. Members of tars and
    zips are compared by what their source says.
    """

    uri: str
    source: ByteSource = WholeFile()
    size_bytes: int = 0
    version: str | None = None

    @property
    def file(self) -> str | None:
        """The URI of the file that holds the bytes; None for an image that is not read."""
        match self.source:
            case WholeFile():
                return self.uri
            case Refused():
                return None
            case source:
                return source.file


@dataclass(frozen=True)
class FetchedImage:
    """A requested image on its way to the decoder.

    `content` is its bytes, or why they cannot be read. None: whoever decodes it reads it first.
    """

    ref: ImageRef
    content: bytes | Rejection | None = None


def tar_member_version(container_version: str, offset: int) -> str:
    """The version of a tar's member. A tar has no checksum of its members: they change when the tar does."""
    return f"{container_version}+{offset}"


# How an inventory stores a ByteSource, next to `image_uri` and `image_version`. All are null for a WholeFile,
# all but the method for what is refused. The version of a member's tar is part of its `image_version`.
# Unfinished runs hold these columns: names, types and methods stay as they are.
SOURCE_FIELDS: Final = (
    pa.field("container", pa.string()),
    pa.field("member_method", pa.string()),
    pa.field("member_offset", pa.int64()),
    pa.field("member_stored_bytes", pa.int64()),
    pa.field("member_size_bytes", pa.int64()),
    pa.field("member_crc32", pa.int64()),
)
_UNLINKED: Final = "real path"
_TARS: Final[dict[str, TarCompression | None]] = {
    "tar": None,
    "tar.gz": "gz",
    "tar.bz2": "bz2",
    "tar.xz": "xz",
    "tar.zst": "zst",
}
_ZIPS: Final = {"zip.stored": False, "zip.deflated": True}
_REFUSALS: Final = {
    "encrypted": ENCRYPTED,
    "unknown method": UNKNOWN_METHOD,
    "cut short": CUT_SHORT,
    "forbidden": NOT_ALLOWED,
    "other form": OTHER_FORM,
}
_TAR_METHODS: Final = {compression: method for method, compression in _TARS.items()}
_ZIP_METHODS: Final = {is_deflated: method for method, is_deflated in _ZIPS.items()}
_REFUSAL_METHODS: Final = {refused: method for method, refused in _REFUSALS.items()}


def source_values(source: ByteSource) -> tuple[str | int | None, ...]:
    """The values of SOURCE_FIELDS."""
    match source:
        case WholeFile():
            return (None,) * len(SOURCE_FIELDS)
        case UnlinkedFile(file):
            return (file, _UNLINKED, 0, 0, 0, None)
        case TarEntry(file, _, offset, size_bytes, compression):
            return (file, _TAR_METHODS[compression], offset, size_bytes, size_bytes, None)
        case ZipEntry(file, offset, stored_bytes, size_bytes, crc32, is_deflated):
            return (file, _ZIP_METHODS[is_deflated], offset, stored_bytes, size_bytes, crc32)
        case Refused():
            return (None, _REFUSAL_METHODS[source], None, None, None, None)


def image_refs(rows: pa.Table) -> list[ImageRef]:
    """The request for each row of an inventory, in order."""
    columns = (rows[field.name].to_pylist() for field in SOURCE_FIELDS)
    images = zip(
        *(rows[name].to_pylist() for name in ("image_uri", "image_version", "size_bytes")),
        *columns,
        strict=True,
    )
    return [
        ImageRef(uri, _source(version, *values), size_bytes or 0, version)
        for uri, version, size_bytes, *values in images
    ]


def _source(
    version: str,
    container: str,
    method: str | None,
    offset: int,
    stored_bytes: int,
    size_bytes: int,
    crc32: int,
) -> ByteSource:
    if method is None:
        return WholeFile()
    if method == _UNLINKED:
        return UnlinkedFile(container)
    if method in _TARS:
        return TarEntry(container, version.rpartition("+")[0], offset, size_bytes, _TARS[method])
    if method in _ZIPS:
        return ZipEntry(container, offset, stored_bytes, size_bytes, crc32, _ZIPS[method])
    if method in _REFUSALS:
        return _REFUSALS[method]
    raise PneumoniaError(
        f"an inventory with images of the kind {method!r} was written by another version of this program.",
        Remedy.START_OVER,
    )
