"""Files on a disk of this machine."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import IO, Final

import pyarrow as pa
import pyarrow.fs as pafs

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile, as_text
from pneumonia_core.storage.errors import NO_REGULAR_FILE, REWRITTEN, os_errors_rejected

SCHEME: Final = "file://"
_ARROW: Final = pafs.LocalFileSystem()
# A byte that is not UTF-8, as `as_text` shows it.
_ESCAPED: Final = re.compile(rb"\\x([89a-f][0-9a-f])")


class LocalBackend:
    """Disks of this machine, by `file://` URIs; implements `Backend`."""

    def stat(self, uri: str) -> StoredFile:
        with os_errors_rejected():
            path = _path_on_disk(uri)
            return local_file(path, os.stat(path))  # noqa: PTH116 - a plain path is the raw name

    def read_range(self, uri: str, offset: int, count: int, version: str | None = None) -> bytes:
        return _read(_path_on_disk(uri), offset, count, version)

    def exists(self, uri: str) -> bool:
        try:
            _plain_path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_folder(self, uri: str) -> bool:
        return _plain_path(uri).is_dir()

    def read_whole(self, uri: str) -> bytes:
        return _plain_path(uri).read_bytes()

    def open(self, uri: str) -> pa.NativeFile:
        return _ARROW.open_input_file(uri.removeprefix(SCHEME))

    @contextlib.contextmanager
    def write(self, uri: str, durable: bool) -> Iterator[IO[bytes]]:
        target = _plain_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            # A rename is on the disk only when its folder is.
            _sync(target.parent)

    def make_durable(self, uri: str) -> None:
        path = _plain_path(uri)
        _sync(path)
        _sync(path.parent)

    def written_at_s(self, uri: str) -> float:
        # A network's disk gives the time of its server.
        return _plain_path(uri).stat().st_mtime

    def list_names(self, folder: str) -> list[str]:
        try:
            return os.listdir(_plain_path(folder))  # noqa: PTH208 - names only
        except FileNotFoundError:
            return []

    def make_folder(self, uri: str) -> None:
        _plain_path(uri).mkdir(parents=True, exist_ok=True)

    def delete_file(self, uri: str) -> None:
        _plain_path(uri).unlink(missing_ok=True)

    def delete_folder(self, uri: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            _ARROW.delete_dir(uri.removeprefix(SCHEME))


def local_file(path: str, status: os.stat_result) -> StoredFile:
    """A local file whose `status` is known. Raises RejectedImage where it is not a regular file."""
    if not S_ISREG(status.st_mode):
        raise RejectedImage("not_found", NO_REGULAR_FILE)
    return StoredFile(f"{SCHEME}{as_text(os.fsencode(path))}", status.st_size, _version(status))


def read_real_file(path: str, version: str | None = None) -> bytes:
    """All bytes of a local file of at most 512 MiB whose path contains no link.

    Raises RejectedImage, also where a part of the path has become a link, or the file is no longer at the
    given `version`.
    """
    return _read(path, 0, MAX_SOURCE_BYTES + 1, version, must_be_real=True)


def _read(
    path: str, offset: int, count: int, version: str | None = None, must_be_real: bool = False
) -> bytes:
    with os_errors_rejected():
        # Without O_NONBLOCK, opening a FIFO waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0):  # noqa: PTH123 - a plain path is the raw name
            if must_be_real and _opened_path(descriptor, path) != path:
                raise RejectedImage("forbidden", "its path has become a link since it was listed")
            status = os.fstat(descriptor)
            if not S_ISREG(status.st_mode):
                raise RejectedImage("unreadable", NO_REGULAR_FILE)
            _check_version(version, status)
            wanted = min(count, max(status.st_size - offset, 0))
            if wanted > MAX_SOURCE_BYTES:
                raise RejectedImage("too_large", f"{status.st_size} bytes, the limit is {MAX_SOURCE_BYTES}")
            pieces = []
            while wanted and (piece := os.pread(descriptor, wanted, offset)):
                pieces.append(piece)
                offset, wanted = offset + len(piece), wanted - len(piece)
            # It may have been written to in between.
            _check_version(version, os.fstat(descriptor))
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_version(version: str | None, status: os.stat_result) -> None:
    """Raise RejectedImage where an open file is not, or no longer, at a version."""
    if version is not None and version != _version(status):
        raise RejectedImage("unreadable", REWRITTEN)


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _opened_path(descriptor: int, path: str) -> str:
    """The path of an open file.

    Linux gives it for the descriptor: one call instead of one for each folder of the path, and nobody can put
    a link there in between.
    """
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")  # noqa: PTH115
    except OSError:
        return os.path.realpath(path)


def _plain_path(uri: str) -> Path:
    """The path of one of the program's own files, whose name is always UTF-8."""
    return Path(uri.removeprefix(SCHEME))


def _path_on_disk(uri: str) -> str:
    """The path of a listed file, whose name on the disk may not be UTF-8: the URI then shows it escaped."""
    path = uri.removeprefix(SCHEME)
    if "\\x" not in path or os.path.lexists(path):
        return path
    return os.fsdecode(raw_path(uri))


def raw_path(uri: str) -> bytes:
    """The path of a local file in bytes, with those that are not UTF-8, which the URI shows escaped."""
    path = os.fsencode(uri.removeprefix(SCHEME))
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
