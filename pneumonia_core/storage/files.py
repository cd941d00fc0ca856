"""The program's own files, on a disk or in a bucket: read and written whole, listed, deleted."""

import contextlib
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.errors import StorageUnavailable, as_own_object_error, cannot_write
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint


def exists(location: Location) -> bool:
    """Whether there is a file or folder. Raises OSError; PneumoniaError where a bucket cannot be listed."""
    return location.backend.exists(location.uri)


def is_folder(location: Location) -> bool:
    """Whether there is a folder. Raises PneumoniaError where a bucket cannot be listed."""
    return location.backend.is_folder(location.uri)


def read_bytes(location: Location) -> bytes:
    """The whole file. Raises FileNotFoundError, or another OSError."""
    return location.backend.read_whole(location.uri)


def file_size(location: Location) -> int:
    """Bytes of a file. Raises FileNotFoundError, or another OSError."""
    try:
        return location.backend.stat(location.uri).size_bytes
    except (RejectedImage, StorageUnavailable) as error:
        raise as_own_object_error(location.uri, error) from None


def open_file(location: Location) -> pa.NativeFile:
    """A file to seek and read in. Raises FileNotFoundError, or another OSError."""
    return location.backend.open(location.uri)


def write_bytes(location: Location, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, as `write_stream` does."""
    with write_stream(location, durable) as stream:
        stream.write(data)


@contextlib.contextmanager
def write_stream(location: Location, durable: bool = True) -> Iterator[IO[bytes]]:
    """A binary stream whose file appears, whole, when the block ends without an error.

    On a disk that is fsync and rename, in a bucket one PUT. A file that is not `durable` survives the end of
    the process, but not a power cut. Raises OSError.
    """
    failpoint("write", location.path)
    with location.backend.write(location.uri, durable) as stream:
        yield stream


def make_durable(location: Location) -> None:
    """Let a file that another library wrote survive a power cut. Raises OSError."""
    location.backend.make_durable(location.uri)


def written_at_s(location: Location) -> float:
    """When a file was written by the clock of its storage, in seconds since 1970. Raises OSError."""
    return location.backend.written_at_s(location.uri)


def list_names(folder: Location) -> list[str]:
    """The names directly in a folder, without temporary files, sorted; empty where there is no folder."""
    return sorted(name for name in folder.backend.list_names(folder.uri) if not name.startswith("."))


def make_folder(location: Location) -> None:
    """Create a folder and its parents; in S3 there are none, and the bucket must exist.

    Raises InvalidInput where that is not allowed, PneumoniaError where the disk is full.
    """
    try:
        location.backend.make_folder(location.uri)
    except OSError as error:
        raise cannot_write(location.uri, "cannot create this folder", error) from error


def delete_file(location: Location) -> None:
    """Delete a file; it may be gone already. Raises OSError."""
    location.backend.delete_file(location.uri)


def delete_folder(location: Location) -> None:
    """Delete a folder and everything in it; it may be gone already. Raises OSError."""
    location.backend.delete_folder(location.uri)
