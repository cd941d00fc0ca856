"""Where the bytes of a listed image stand: in a file of its own, or in a tar or zip that is never unpacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

# How the bytes of a member are stored. A member of a compressed tar has its offset in the inflated stream.
TAR: Final = "tar"
TAR_GZ: Final = "tar.gz"
TAR_ZST: Final = "tar.zst"
ZIP_STORED: Final = "zip.stored"
ZIP_DEFLATED: Final = "zip.deflated"
# Nothing is read of these: what is known at listing is the reason why.
ENCRYPTED: Final = "encrypted"
UNKNOWN_METHOD: Final = "unknown method"
CUT_SHORT: Final = "cut short"
FORBIDDEN: Final = "forbidden"
# A manifest's local file, read only while the path has no link that leads elsewhere.
REAL_PATH: Final = "real path"
STREAMED: Final = (TAR_GZ, TAR_ZST)
_TARS: Final = (TAR, *STREAMED)


@dataclass(frozen=True)
class Member:
    """Bytes inside a container: `stored_bytes` of them from `offset` on, `size_bytes` when inflated.

    Of a tar, `container_version` is the one that was listed: in any other, another image may stand at the offset.
    """

    container: str
    method: str
    offset: int = 0
    stored_bytes: int = 0
    size_bytes: int = 0
    crc32: int | None = None
    container_version: str | None = None


@dataclass(frozen=True)
class ListedImage:
    """One image as listed: `version` changes when the content does; `carried` is a JSON object of the
    manifest's columns that go through to the table."""

    uri: str
    version: str
    size_bytes: int
    member: Member | None = None
    carried: str | None = None


@dataclass(frozen=True)
class ImageRef:
    """One image to be read, of `size_bytes` where the listing knew them. Of one that is read ahead, or in order with
    its neighbours, the reader sets `data`, or the `rejection` (reason, detail) that came instead."""

    uri: str
    member: Member | None = None
    size_bytes: int = 0
    data: bytes | None = None
    rejection: tuple[str, str] | None = None


def tar_member_version(container_version: str, offset: int) -> str:
    """The version of a tar's member. A tar has no checksum of its members: they count as changed when the tar did."""
    return f"{container_version}+{offset}"


def _container_version(method: str | None, version: str) -> str | None:
    """The version of a tar, out of its member's; None for what is no member of one."""
    return version.rpartition("+")[0] if method in _TARS else None


# The inventory's columns that say where a member stands; all null for a file of its own. The version of a member's tar
# stands in `image_version`.
MEMBER_FIELDS: Final = (
    pa.field("container", pa.string()),
    pa.field("member_method", pa.string()),
    pa.field("member_offset", pa.int64()),
    pa.field("member_stored_bytes", pa.int64()),
    pa.field("member_size_bytes", pa.int64()),
    pa.field("member_crc32", pa.int64()),
)


def member_values(member: Member | None) -> tuple[Any, ...]:
    """The values of MEMBER_FIELDS."""
    if member is None:
        return (None,) * len(MEMBER_FIELDS)
    return (
        member.container,
        member.method,
        member.offset,
        member.stored_bytes,
        member.size_bytes,
        member.crc32,
    )


def image_refs(rows: pa.Table) -> list[ImageRef]:
    """What is to be read for each row of a chunk, in order."""
    tars = map(_container_version, rows["member_method"].to_pylist(), rows["image_version"].to_pylist())
    members: Sequence[tuple[Any, ...]] = list(
        zip(*(rows[field.name].to_pylist() for field in MEMBER_FIELDS), tars, strict=True)
    )
    images = zip(rows["image_uri"].to_pylist(), rows["size_bytes"].to_pylist(), members, strict=True)
    return [
        ImageRef(uri, None if values[0] is None else Member(*values), size_bytes or 0)
        for uri, size_bytes, values in images
    ]
