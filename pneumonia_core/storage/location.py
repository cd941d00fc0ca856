"""Where a file or folder is: its URI, and the storage that reaches it."""

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.arrow import ArrowBackend
from pneumonia_core.storage.backend import Backend, BucketBackend, as_text
from pneumonia_core.storage.local import LocalBackend
from pneumonia_core.storage.synonyms import canonical, what_to_write

_LOCAL: Final = LocalBackend()
SCHEMES: Final = ("file", "s3", "gs", "abfs")
# In a URI, `?name=` sets an option of a file system; here it would be part of a name. A presigned URL has its
# secret there, as in ?X-Amz-Signature=.
OPTIONS: Final = re.compile(r"\?[\w.-]+=")


@dataclass(frozen=True)
class Location:
    """A file or folder by its raw (not percent-encoded) `uri`.

    It holds no credentials and travels between processes as it is: each takes them from its own environment.
    """

    uri: str

    @property
    def scheme(self) -> str:
        return self.uri.partition("://")[0]

    @property
    def path(self) -> str:
        """The path on a disk, or `BUCKET/KEY`."""
        return self.uri.partition("://")[2]

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @property
    def is_s3(self) -> bool:
        return self.scheme == "s3"

    @property
    def backend(self) -> Backend:
        """The storage that reaches it."""
        return _LOCAL if self.is_local else self.bucket

    @property
    def bucket(self) -> BucketBackend:
        """The storage of a location that is not local."""
        return _bucket_backend(self.scheme)

    @property
    def name(self) -> str:
        """The last segment of the URI: the name of the file or folder in its parent."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        """The folder, or the bucket, that the file or folder is in."""
        return Location(self.uri.rpartition("/")[0])

    def child(self, name: str) -> "Location":
        """A file or folder in this folder."""
        return Location(f"{self.uri.removesuffix('/')}/{name}")


@cache
def _bucket_backend(scheme: str) -> BucketBackend:
    if scheme == "s3":
        # Here, because botocore takes a while to import, and only S3 needs it.
        from pneumonia_core.storage.s3.backend import S3Backend

        return S3Backend()
    return ArrowBackend(scheme)


def open_location(text: str) -> Location:
    """The location that a user names: a local path, or a `file://`, `s3://`, `gs://` or `abfs://` URI.

    The schemes of `synonyms` are read too. Keys are taken as they are, not percent-decoded. Raises
    InvalidInput.
    """
    if advice := what_to_write(text):
        raise InvalidInput(f"{text!r}: {advice}")
    text = canonical(text)
    scheme, found, rest = text.partition("://")
    if not (rest if found else text):
        raise InvalidInput(f"{text!r} names no place: give a path, or a URI such as s3://BUCKET/KEY.")
    if not found or scheme == "file":
        path = os.path.abspath(os.path.expanduser(rest if found else text))  # noqa: PTH100, PTH111 - raw text
        if as_text(os.fsencode(path)) != path:
            raise InvalidInput(
                f"{text!r}: a table cannot hold a path that is not UTF-8. Rename it, or name a folder above "
                "it."
            )
        return Location(f"file://{path}")
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES:
        raise InvalidInput(
            f"the scheme {scheme}:// is not supported. Give a local path, s3://, gs:// or abfs://."
        )
    if "@" in bucket or ":" in bucket or OPTIONS.search(text):
        # The text may hold a secret: it is not shown.
        raise InvalidInput(
            f"a {scheme}:// location takes no credentials and no options: write {scheme}://BUCKET/KEY, and "
            "give "
            "credentials and endpoint in the usual environment variables."
        )
    if not bucket:
        raise InvalidInput(f"{text!r} names no bucket: write {scheme}://BUCKET/KEY.")
    return Location(f"{scheme}://{bucket}/{key}".rstrip("/"))
