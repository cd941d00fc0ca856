"""An object in S3 as a file that can be read anywhere."""

import contextlib
import datetime
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from stat import S_ISREG
from typing import IO, Any, Final, cast

import pyarrow as pa

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage import s3_objects
from pneumonia_core.storage.errors import REWRITTEN, as_own_object_error
from pneumonia_core.storage.location import MAX_SOURCE_BYTES, as_text, listed_location


class RangeFile(io.RawIOBase):
    """An object as it stands now, read by ranges: no two of them of different versions. Raises OSError."""

    def __init__(self, uri: str) -> None:
        self._position = 0
        try:
            self._found = s3_objects.head(uri)
        except RejectedImage as rejected:
            raise as_own_object_error(uri, rejected) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size_bytes}
        self._position = offset + start[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        found = self._found
        count = min(len(view), max(found.size_bytes - self._position, 0))
        try:
            data = s3_objects.get(found.uri, self._position, count, found.version) if count else b""
        except RejectedImage as rejected:
            raise as_own_object_error(found.uri, rejected) from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


_STREAM_PIECE: Final = 4 * 2**20
# Header, extended header and its records of a tar's member: most need no second request.
_TAR_WINDOW: Final = 1536
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# A byte that is no UTF-8, as a name shows it.
_ESCAPED: Final = re.compile(rb"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True)
class StoredFile:
    """A file as it stands: `version` changes when the content does."""

    uri: str
    size_bytes: int
    version: str


def stat_file(uri: str) -> StoredFile:
    """What stands at a URI. Raises RejectedImage where that is no readable regular file."""
    if uri.startswith("file://"):
        with _local_errors():
            path = _path_on_disk(uri)
            return local_file(path, os.stat(path))  # noqa: PTH116 - a plain path is the raw name
    if uri.startswith("s3://"):
        found = s3_objects.head(uri)
        return StoredFile(uri, found.size_bytes, found.version)
    with _local_errors():
        place = listed_location(uri)
        info = place.fs.get_file_info(place.path)
        if not info.is_file:
            raise RejectedImage("not_found", "no file of that name")
        return StoredFile(uri, info.size, f"{info.size}-{info.mtime_ns}")


def local_file(path: str, status: os.stat_result) -> StoredFile:
    """A local file of which `status` is known. Raises RejectedImage where it is not a regular one."""
    if not S_ISREG(status.st_mode):
        raise RejectedImage("not_found", "no regular file")
    return StoredFile(f"file://{as_text(os.fsencode(path))}", status.st_size, _local_version(status))


def _local_version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _path_on_disk(uri: str) -> str:
    """The path that a local file's URI shows, whose name may be no UTF-8."""
    path = uri.removeprefix("file://")
    if "\\x" not in path or os.path.lexists(path):
        return path
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(path)))


def read_file(uri: str) -> bytes:
    """The whole of a file of at most 512 MiB. Raises RejectedImage with a reason of the stage `read`."""
    return read_range(uri, 0, MAX_SOURCE_BYTES + 1)


def read_real_file(path: str) -> bytes:
    """The whole of a local file whose path has no link in it. Raises RejectedImage as `read_file`, and where the path
    leads elsewhere by now."""
    return _read_local(f"file://{path}", 0, MAX_SOURCE_BYTES + 1, must_be_real=True)


def read_range(uri: str, offset: int, count: int, version: str | None = None) -> bytes:
    """Up to `count` bytes from `offset` on, fewer where the file ends. Raises RejectedImage as `read_file`, of more than
    512 MiB before it takes their memory, and where the file is no more at the `version` that is given."""
    if uri.startswith("file://"):
        return _read_local(uri, offset, count, version)
    if uri.startswith("s3://"):
        return s3_objects.get(uri, offset, count, version)
    with _local_errors():
        place = listed_location(uri)
        with place.fs.open_input_file(place.path) as file:
            if version is not None and not _may_be_at(version, file):
                raise RejectedImage("unreadable", REWRITTEN)
            if min(count, file.size() - offset) > MAX_SOURCE_BYTES:
                raise RejectedImage("too_large", f"{file.size()} bytes, the limit is {MAX_SOURCE_BYTES}")
            file.seek(offset)
            return bytes(file.read(count))


def _may_be_at(version: str, opened: pa.NativeFile) -> bool:
    """Whether a file in Google's or Azure's storage is at a version, by what came with opening it: Azure's size, Google's
    size and time."""
    size, _, mtime_ns = version.partition("-")
    updated = opened.metadata().get("updated")
    if updated is not None:
        since = datetime.datetime.fromisoformat(updated.decode()) - _EPOCH
        if since // datetime.timedelta(microseconds=1) != int(mtime_ns) // 1000:
            return False
    return size == str(opened.size())


def _read_local(
    uri: str, offset: int, count: int, version: str | None = None, must_be_real: bool = False
) -> bytes:
    with _local_errors():
        path = _path_on_disk(uri)
        # Not to wait for ever for whoever writes into a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0):  # noqa: PTH123 - a plain path is the raw name
            if must_be_real and _opened_path(descriptor, path) != path:
                raise RejectedImage("forbidden", "its path has become a link since it was listed")
            status = os.fstat(descriptor)
            if not S_ISREG(status.st_mode):
                raise RejectedImage("unreadable", "no regular file")
            if version is not None and version != _local_version(status):
                raise RejectedImage("unreadable", REWRITTEN)
            wanted = min(count, max(status.st_size - offset, 0))
            if wanted > MAX_SOURCE_BYTES:
                raise RejectedImage("too_large", f"{status.st_size} bytes, the limit is {MAX_SOURCE_BYTES}")
            pieces = []
            while wanted and (piece := os.pread(descriptor, wanted, offset)):
                pieces.append(piece)
                offset, wanted = offset + len(piece), wanted - len(piece)
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _opened_path(descriptor: int, path: str) -> str:
    """Where an open file stands. Linux says it of the descriptor: one call instead of one for each folder of the path,
    and no one can put a link there in between."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return os.path.realpath(path)


@contextlib.contextmanager
def _local_errors() -> Iterator[None]:
    """What an operating system's error means for an image; its text may carry names and stays out."""
    try:
        yield
    except FileNotFoundError:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    except PermissionError:
        raise RejectedImage("forbidden", "no permission to read it") from None
    except TimeoutError:
        raise RejectedImage("timeout", "the storage did not answer in time") from None
    except OSError as error:
        raise RejectedImage("unreadable", f"the storage gave error number {error.errno}") from None
    except ValueError:
        raise RejectedImage("not_found", "no storage has a file of such a name") from None


class Window:
    """Reads a file by range with a little more than is asked for, so that what lies close together, as the
    headers of a tar, comes with one request."""

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


def open_stream(stored: StoredFile) -> IO[bytes]:
    """A file to be read from its beginning on, as long as it is the one that is given. Raises RejectedImage."""
    if not stored.uri.startswith("file://"):
        return cast(IO[bytes], io.BufferedReader(_Pieces(stored), _STREAM_PIECE))
    with _local_errors():
        file = open(_path_on_disk(stored.uri), "rb")  # noqa: PTH123, SIM115 - a plain path is the raw name
        if _local_version(os.fstat(file.fileno())) != stored.version:
            file.close()
            raise RejectedImage("unreadable", REWRITTEN)
        return file


class _Pieces(io.RawIOBase):
    """A remote file in pieces, each read with its own retries, all of one version."""

    def __init__(self, stored: StoredFile) -> None:
        self._stored = stored
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = read_range(self._stored.uri, self._position, len(view), self._stored.version)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
