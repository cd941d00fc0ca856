"""Where files live: a folder on this machine or a prefix in a bucket, with writes that are whole or absent."""

import os
import re
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.fs as pafs

from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.arrow_filesystems import file_system

MAX_SOURCE_BYTES: Final = 512 * 2**20


def as_text(name: bytes) -> str:
    """A name as it can stand in a table: what is no UTF-8 is shown escaped."""
    return name.decode("utf-8", "backslashreplace")


SCHEMES: Final = ("file", "s3", "gs", "abfs")
# What would set a file system's options, were the text taken for a URI and not for a name.
# A presigned URL's, as ?X-Amz-Signature=, are a secret.
OPTIONS: Final = re.compile(r"\?[\w.-]+=")


@dataclass(frozen=True)
class Location:
    """A file or folder: its raw (not percent-encoded) `uri`, and the file system and path that reach it."""

    uri: str
    fs: pafs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return self.uri.startswith("file://")

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the name alone: credentials come from where it is used.
        if self.is_local:
            return Location, (self.uri, self.fs, self.path)
        return listed_location, (self.uri,)

    @property
    def name(self) -> str:
        """The last segment of the URI: the name of the file or folder in its parent."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        """The folder, or the bucket, that the file or folder is in."""
        return Location(self.uri.rpartition("/")[0], self.fs, self.path.rpartition("/")[0])

    def child(self, name: str) -> "Location":
        return Location(f"{self.uri.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")


def open_location(text: str) -> Location:
    """The place that a user names: a local path, or a `file://`, `s3://`, `gs://` or `abfs://` URI, whose key
    is taken as it is, not percent-decoded. Raises InvalidInput."""
    scheme, found, rest = text.partition("://")
    if not (rest if found else text):
        raise InvalidInput(f"{text!r} names no place: give a path, or a URI such as s3://BUCKET/KEY.")
    if not found or scheme == "file":
        path = os.path.abspath(os.path.expanduser(rest if found else text))  # noqa: PTH100, PTH111 - keeps raw text
        if as_text(os.fsencode(path)) != path:
            raise InvalidInput(
                f"{text!r}: a path that is no UTF-8 cannot stand in a table. Rename it, or name a folder above it."
            )
        return Location(f"file://{path}", pafs.LocalFileSystem(), path)
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES:
        raise InvalidInput(
            f"the scheme {scheme}:// is not supported. Give a local path, s3://, gs:// or abfs://."
        )
    if "@" in bucket or ":" in bucket or OPTIONS.search(text):
        # The text may hold a secret: it is not shown.
        raise InvalidInput(
            f"a {scheme}:// place holds no credentials and no options: write {scheme}://BUCKET/KEY, and give "
            "credentials and endpoint in the usual environment variables."
        )
    if not bucket:
        raise InvalidInput(f"{text!r} names no bucket: write {scheme}://BUCKET/KEY.")
    return listed_location(f"{scheme}://{bucket}/{key}".rstrip("/"))


def listed_location(uri: str) -> Location:
    """The place of a bucket's URI that a listing gave: any text may stand in its key."""
    scheme, _, path = uri.partition("://")
    return Location(uri, file_system(scheme, path.partition("/")[0]), path)
