"""Where files live: a folder on this machine or a prefix in a bucket, with writes that are whole or absent."""

import contextlib
import errno
import io
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.fs as pafs

from pneumonia_core import objects, s3_client
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.failpoints import failpoint
from pneumonia_core.file_systems import file_system
from pneumonia_core.names import as_text
from pneumonia_core.range_file import RangeFile
from pneumonia_core.s3_errors import BucketError

SCHEMES: Final = ("file", "s3", "gs", "abfs")
# What would set a file system's options, were the text taken for a URI and not for a name.
# A presigned URL's, as ?X-Amz-Signature=, are a secret.
OPTIONS: Final = re.compile(r"\?[\w.-]+=")
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_BUSY: Final = re.compile(r"status code: (5\d\d|429)")
# Colours and arrows in deltalake's errors.
_ORNAMENT: Final = re.compile(r"\x1b\[\d+m|↳")


@dataclass(frozen=True)
class Place:
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
            return Place, (self.uri, self.fs, self.path)
        return listed_place, (self.uri,)

    def child(self, name: str) -> "Place":
        return Place(f"{self.uri.rstrip('/')}/{name}", self.fs, f"{self.path.rstrip('/')}/{name}")


def open_place(text: str) -> Place:
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
        return Place(f"file://{path}", pafs.LocalFileSystem(), path)
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
    return listed_place(f"{scheme}://{bucket}/{key}".rstrip("/"))


def listed_place(uri: str) -> Place:
    """The place of a bucket's URI that a listing gave: any text may stand in its key."""
    scheme, _, path = uri.partition("://")
    return Place(uri, file_system(scheme, path.partition("/")[0]), path)


def storage_options(place: Place) -> dict[str, str]:
    """What the libraries that read Delta tables need to know besides their environment."""
    if not place.is_s3:
        return {}
    # Of two who commit the same version, the bucket itself lets one win.
    options = {"aws_conditional_put": "etag"}
    if url := s3_client.endpoint():
        options["aws_endpoint_url"] = url
        options["aws_allow_http"] = str(url.startswith("http://")).lower()
    if region := s3_client.region():
        options["aws_region"] = region
    return options


def exists(place: Place) -> bool:
    """Whether there is a file or folder."""
    if place.is_s3:
        return objects.exists(place.uri)
    return bool(place.fs.get_file_info(place.path).type != pafs.FileType.NotFound)


def read_bytes(place: Place) -> bytes:
    """The whole file. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return objects.get_whole(place.uri)
    with place.fs.open_input_stream(place.path) as stream:
        return bytes(stream.read())


def file_size(place: Place) -> int:
    """Bytes of a file. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return objects.size(place.uri)
    info = place.fs.get_file_info(place.path)
    if not info.is_file:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place.uri)
    return int(info.size)


def open_file(place: Place) -> pa.NativeFile:
    """A file to be read anywhere in it. Raises FileNotFoundError, or another OSError."""
    if place.is_s3:
        return pa.PythonFile(RangeFile(place.uri), "r")
    return place.fs.open_input_file(place.path)


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


def make_durable(place: Place) -> None:
    """Have a file that another library has written outlive the power of this machine; a bucket sees to that itself."""
    if place.is_local:
        for path in (Path(place.path), Path(place.path).parent):
            _sync(path)


def _put(place: Place, data: bytes) -> None:
    if place.is_s3:
        objects.put(place.uri, data)
        return
    with place.fs.open_output_stream(place.path) as stream:
        stream.write(data)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_names(folder: Place) -> list[str]:
    """The names directly in a folder, without temporary files, sorted; empty where there is no folder."""
    if folder.is_s3:
        return sorted(name for name in objects.list_folder(folder.uri) if not name.startswith("."))
    selector = pafs.FileSelector(folder.path, allow_not_found=True)
    names = [info.base_name for info in folder.fs.get_file_info(selector)]
    return sorted(name for name in names if not name.startswith("."))


def make_folder(place: Place) -> None:
    """Create a folder and its parents; in S3 there are none, and the bucket must exist. Raises InvalidInput
    where that cannot be done, PneumoniaError where the disk is full."""
    try:
        if place.is_s3:
            objects.check_bucket(objects.split_uri(place.uri)[0])
        else:
            place.fs.create_dir(place.path, recursive=True)
    except OSError as error:
        raise cannot_write(place, "cannot create this folder", error) from error


def delete_file(place: Place) -> None:
    """Delete a file that may be gone already."""
    if place.is_s3:
        objects.delete([place.uri])
        return
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_file(place.path)


def delete_folder(place: Place) -> None:
    """Delete a folder and all in it; it may be gone already."""
    if place.is_s3:
        for page in objects.list_pages(f"{place.uri}/"):
            if page:
                objects.delete([found.uri for found in page])
        return
    with contextlib.suppress(FileNotFoundError):
        place.fs.delete_dir(place.path)


def cannot_write(place: Place, what: str, error: Exception) -> PneumoniaError:
    """The error that says that `what` cannot be done there: a full disk may have room later, a bucket may answer again,
    any other place must be another."""
    remedy = None
    if _error_number(error) in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Make room there, then run the same command again."
    elif isinstance(error, BucketError) or broke_off(error):
        remedy = "Run the same command again when the storage answers."
    if remedy:
        return PneumoniaError(f"{place.uri}: {what} ({error_text(error)}). {remedy}")
    return InvalidInput(f"{place.uri}: {what} ({error_text(error)}). Choose a place that you may write to.")


def error_text(error: Exception) -> str:
    """What the operating system or the storage says of an error, in a few words."""
    if number := _error_number(error):
        return os.strerror(number)
    lines = [_ORNAMENT.sub("", line).strip() for line in str(error).splitlines()]
    return ": ".join(line for line in lines if line)[:300] or type(error).__name__


def broke_off(error: Exception) -> bool:
    """Whether the connection to a bucket failed or it had no time for us, by what deltalake says: it has no class for
    that."""
    text = str(error)
    return "Generic S3 error" in text and ("HTTP error" in text or bool(_BUSY.search(text)))


def _error_number(error: Exception) -> int | None:
    """The operating system's number of an error; deltalake tells it in its text alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None
