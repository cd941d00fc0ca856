"""What every kind of storage can do: the protocol that `local`, `s3` and `arrow` implement."""

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import IO, Final, Protocol

import pyarrow as pa

MAX_SOURCE_BYTES: Final = 512 * 2**20


def as_text(name: bytes) -> str:
    """A file name as text for a table: bytes that are not UTF-8 are escaped as `\\xNN`."""
    return name.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class StoredFile:
    """A file as the storage describes it.

    `version` changes when the content does: an ETag, or size and mtime. `version_without_etag` is what a
    bucket's listing gives as the version where it has no ETags.
    """

    uri: str
    size_bytes: int
    version: str
    version_without_etag: str | None = None

    def is_at(self, version: str) -> bool:
        """Whether it is the file that was listed at this version."""
        return version in (self.version, self.version_without_etag)


class Backend(Protocol):
    """One kind of storage. Each method takes a raw URI, not percent-encoded.

    `stat` and `read_range` serve images: they raise RejectedImage, whose reason belongs to the stage `read`,
    and StorageUnavailable where a bucket fails for minutes. All other methods serve the program's own files
    and raise OSError. Both raise CredentialsError where the storage rejects the credentials: that concerns
    every file, not one.
    """

    def stat(self, uri: str) -> StoredFile:
        """Size and version of a regular file."""
        ...

    def read_range(self, uri: str, offset: int, count: int, version: str | None = None) -> bytes:
        """Up to `count` bytes from `offset` on, fewer where the file ends.

        A file that is no longer at the given `version` is rejected. So is a read of more than 512 MiB, before
        it takes their memory.
        """
        ...

    def exists(self, uri: str) -> bool:
        """Whether there is a file or a folder."""
        ...

    def is_folder(self, uri: str) -> bool:
        """Whether there is a folder. A bucket has one where a key begins with the URI and a slash."""
        ...

    def read_whole(self, uri: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError where there is none."""
        ...

    def open(self, uri: str) -> pa.NativeFile:
        """A file to seek and read in. Raises FileNotFoundError where there is none."""
        ...

    def write(self, uri: str, durable: bool) -> AbstractContextManager[IO[bytes]]:
        """A stream whose file appears, whole, when the block ends without an error.

        A `durable` file survives a power cut, any other the end of the process only.
        """
        ...

    def make_durable(self, uri: str) -> None:
        """Let a file that another library wrote survive a power cut."""
        ...

    def written_at_s(self, uri: str) -> float:
        """When a file was written by the clock of the storage, in seconds since 1970."""
        ...

    def list_names(self, folder: str) -> list[str]:
        """Names directly in a folder, in any order; empty where there is no folder."""
        ...

    def make_folder(self, uri: str) -> None:
        """Create a folder and its parents. In S3 there are no folders: the bucket must exist."""
        ...

    def delete_file(self, uri: str) -> None:
        """Delete a file; it may be gone already."""
        ...

    def delete_folder(self, uri: str) -> None:
        """Delete a folder and everything in it; it may be gone already."""
        ...


class BucketBackend(Backend, Protocol):
    """A kind of storage that lists itself by prefix."""

    def list_files(self, folder: str, start: str | None = None) -> Iterator[list[StoredFile]]:
        """All files under a folder at any depth, page by page in a fixed order.

        Where the storage can begin after the URI `start`, files up to there are left out.

        Raises PneumoniaError where the folder cannot be listed.
        """
        ...


@contextlib.contextmanager
def upload(put: Callable[[bytes], object]) -> Iterator[IO[bytes]]:
    """A stream whose bytes are `put` by one request when the block ends without an error."""
    buffer = io.BytesIO()
    yield buffer
    put(buffer.getvalue())
