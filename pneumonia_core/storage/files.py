"""Where files live: a folder on this machine or a prefix in a bucket, with writes that are whole or absent."""

import contextlib
import errno
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs

from pneumonia_core.storage import s3_objects
from pneumonia_core.storage.errors import (
    cannot_write,
)
from pneumonia_core.storage.location import (
    Location,
)
from pneumonia_core.storage.ranges import RangeFile
from pneumonia_core.system.failpoints import failpoint


def exists(place: Location) -> bool:
    """Whether there is a file or folder."""
    if place.is_s3:
        return s3_objects.exists(place.uri)
    return bool(place.fs.get_file_info(place.path).type != pafs.FileType.NotFound)


def read_bytes(place: Location) -> bytes:
    """The whole file. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return s3_objects.get_whole(place.uri)
    with place.fs.open_input_stream(place.path) as stream:
        return bytes(stream.read())


def file_size(place: Location) -> int:
    """Bytes of a file. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return s3_objects.size(place.uri)
    info = place.fs.get_file_info(place.path)
    if not info.is_file:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.uri)
    return int(info.size)


def open_file(place: Location) -> pa.NativeFile:
    """A file to be read anywhere in it. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return pa.PythonFile(RangeFile(place.uri), "r")
    return place.fs.open_input_file(place.path)


def write_bytes(place: Location, data: bytes, durable: bool = True) -> None:
    """Write a file whole or not at all: fsync and rename on a disk, one PUT on a bucket.

    What is not `durable` outlives the process, but not the power of a machine.
    """
    with write_stream(place, durable) as stream:
        stream.write(data)


@contextlib.contextmanager
def write_stream(place: Location, durable: bool = True) -> Iterator[IO[bytes] | Any]:
    """A binary stream; the file appears when the block ends well, and never half-written on a disk."""
    if not place.is_local:
        buffer = io.BytesIO()
        failpoint("write", place.path)
        yield buffer
        _put(place, buffer.getvalue())
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
        # A rename is on the disk only when its folder is.
        _sync(target.parent)


def make_durable(place: Location) -> None:
    """Have a file that another library has written outlive the power of this machine; a bucket sees to that itself."""
    if place.is_local:
        for path in (Path(place.path), Path(place.path).parent):
            _sync(path)


def _put(place: Location, data: bytes) -> None:
    if place.is_s3:
        s3_objects.put(place.uri, data)
        return
    with place.fs.open_output_stream(place.path) as stream:
        stream.write(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_names(folder: Location) -> list[str]:
    """The names directly in a folder, without temporary files, sorted; empty where there is no folder."""
    if folder.is_s3:
        return sorted(name for name in s3_objects.list_folder(folder.uri) if not name.startswith("."))
    selector = pafs.FileSelector(folder.path, allow_not_found=True)
    names = [info.base_name for info in folder.fs.get_file_info(selector)]
    return sorted(name for name in names if not name.startswith("."))


def make_folder(place: Location) -> None:
    """Create a folder and its parents; in S3 there are none, and the bucket must exist. Raises InvalidInput
    where that cannot be done, PneumoniaError where the disk is full."""
    try:
        if place.is_s3:
            s3_objects.check_bucket(s3_objects.split_uri(place.uri)[0])
        else:
            place.fs.create_dir(place.path, recursive=True)
    except OSError as error:
        raise cannot_write(place, "cannot create this folder", error) from error


def delete_file(place: Location) -> None:
    """Delete a file that may be gone already."""
    if place.is_s3:
        s3_objects.delete([place.uri])
        return
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_file(place.path)


def delete_folder(place: Location) -> None:
    """Delete a folder and all in it; it may be gone already."""
    if place.is_s3:
        for page in s3_objects.list_pages(f"{place.uri}/"):
            if page:
                s3_objects.delete([found.uri for found in page])
        return
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_dir(place.path)
