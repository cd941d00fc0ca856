"""Images and archives by their URI: size and version, byte ranges, streams."""

import io
from typing import IO, Final, cast

from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.range_reader import RangeReader

_STREAM_PIECE: Final = 4 * 2**20
# Header, extended header and its records of one tar member: most members then need one request.
_TAR_WINDOW: Final = 1536


def stat_file(uri: str) -> StoredFile:
    """Size and version of a file. Raises RejectedImage where there is no readable regular file."""
    return Location(uri).backend.stat(uri)


def read_file(uri: str, version: str | None = None) -> bytes:
    """All bytes of a file of at most 512 MiB.

    Raises RejectedImage with a reason of the stage `read`, also where it is no longer at the given `version`.
    """
    return read_range(uri, 0, MAX_SOURCE_BYTES + 1, version)


def read_range(uri: str, offset: int, count: int, version: str | None = None) -> bytes:
    """Up to `count` bytes from `offset` on, fewer where the file ends.

    Raises RejectedImage as `read_file` does. A read of more than 512 MiB is rejected before it takes their
    memory, and so is a file that is no longer at the given `version`.
    """
    return Location(uri).backend.read_range(uri, offset, count, version)


def open_stream(stored: StoredFile) -> IO[bytes]:
    """A file to read from its beginning. Reading raises RejectedImage once the file is at another version."""
    reader = RangeReader(
        stored.size_bytes, lambda offset, count: read_range(stored.uri, offset, count, stored.version)
    )
    return cast(IO[bytes], io.BufferedReader(reader, _STREAM_PIECE))


class Window:
    """Reads ranges of a file, each with a little more than asked for.

    Bytes that lie close together, such as the headers of a tar, then come with one request.
    """

    def __init__(self, uri: str, least: int = _TAR_WINDOW) -> None:
        self._uri = uri
        self._least = least
        self._start = 0
        self._data = b""

    def __call__(self, offset: int, count: int) -> bytes:
        at = offset - self._start
        if at < 0 or at + count > len(self._data):
            self._data = read_range(self._uri, offset, max(count, self._least))
            self._start, at = offset, 0
        return self._data[at : at + count]
