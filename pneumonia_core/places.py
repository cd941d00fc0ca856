"""Where files live: a folder on this machine or a prefix in a bucket, with writes that are whole or absent."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow.fs as pafs

from pneumonia_core.errors import InvalidInput
from pneumonia_core.failpoints import failpoint


@dataclass(frozen=True)
class Place:
    """A file or folder: its raw (not percent-encoded) `uri`, and the file system and path that reach it."""

    uri: str
    fs: pafs.FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return self.uri.startswith("file://")

    def child(self, name: str) -> "Place":
        return Place(f"{self.uri.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")


def open_place(text: str) -> Place:
    """The place that a user names: a local path or a `file://` URI. Raises InvalidInput."""
    scheme, found, rest = text.partition("://")
    if found and scheme != "file":
        raise InvalidInput(f"{text}: the scheme {scheme}:// is not supported. Give a local path.")
    path = os.path.abspath(os.path.expanduser(rest if found else text))  # noqa: PTH100, PTH111 - keeps raw text
    return Place(f"file://{path}", pafs.LocalFileSystem(), path)


def exists(place: Place) -> bool:
    """Whether there is a file or folder."""
    return bool(place.fs.get_file_info(place.path).type != pafs.FileType.NotFound)


def read_bytes(place: Place) -> bytes:
    """The whole file."""
    with place.fs.open_input_stream(place.path) as stream:
        return bytes(stream.read())


def write_bytes(place: Place, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: fsync and rename on a disk, one PUT on a bucket.

    What is not `durable` outlives the process, but not the power of a machine.
    """
    with write_stream(place, durable) as stream:
        stream.write(data)


@contextlib.contextmanager
def write_stream(place: Place, durable: bool = True) -> Iterator[IO[bytes] | Any]:
    """A binary stream; the file appears when the block ends well, and never half-written on a disk."""
    if not place.is_local:
        with place.fs.open_output_stream(place.path) as stream:
            yield stream
        return
    target = Path(place.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    failpoint("write", str(target))
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
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # A rename is on the disk only when its folder is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_names(folder: Place) -> list[str]:
    """The names directly in a folder, without temporary files, sorted; empty where there is no folder."""
    selector = pafs.FileSelector(folder.path, allow_not_found=True)
    names = [info.base_name for info in folder.fs.get_file_info(selector)]
    return sorted(name for name in names if not name.startswith("."))


def make_folder(place: Place) -> None:
    """Create a folder and its parents. Raises InvalidInput where that cannot be done."""
    try:
        place.fs.create_dir(place.path, recursive=True)
    except OSError as error:
        raise InvalidInput(
            f"{place.uri}: cannot create this folder ({error_text(error)}). "
            "Choose a place that you may write to."
        ) from error


def delete_file(place: Place) -> None:
    """Delete a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_file(place.path)


def delete_folder(place: Place) -> None:
    """Delete a folder and all in it; it may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_dir(place.path)


def error_text(error: OSError) -> str:
    """What the operating system says of an error, in a few words."""
    if error.strerror and not error.strerror.startswith("["):
        return error.strerror
    if error.errno:
        return os.strerror(error.errno)
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
