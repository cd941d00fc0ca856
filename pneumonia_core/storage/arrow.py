"""Google's and Azure's buckets through pyarrow, with the credentials of this process's environment."""

import contextlib
import datetime
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, Final, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile, upload
from pneumonia_core.storage.errors import COLD, REWRITTEN, error_text, os_errors_rejected
from pneumonia_core.storage.patience import GaveUp, Purpose, persist, raise_for_image
from pneumonia_core.storage.s3 import settings as s3_settings

# Google's client retries so long by itself, each time that `patience` lets it try.
_GS_RETRIES: Final = datetime.timedelta(seconds=20)
# What the clients of Google and Azure say about a storage that is busy, fails or is out of reach: their
# errors have no numbers.
_TRANSIENT: Final = re.compile(
    r"UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED|ServerBusy|InternalError|Timed?.?out"
    r"|\b(?:429|500|502|503|504)\b|[Cc]onnect|curl|resolve host|network"
)
_QUOTED: Final = re.compile(r"'[^']*'")
_TIMEOUT: Final = re.compile(r"DEADLINE_EXCEEDED|Timed?.?out", re.IGNORECASE)
# What Azure says about a blob in its archive tier.
_COLD: Final = "BlobArchived"
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
Result = TypeVar("Result")


@dataclass(frozen=True)
class ArrowBackend:
    """The buckets of one scheme that pyarrow reads, `gs` or `abfs`; implements `BucketBackend`."""

    scheme: str

    def stat(self, uri: str) -> StoredFile:
        info = _persist(uri, lambda: self._info(uri))
        if not info.is_file:
            raise RejectedImage("not_found", "no file of that name")
        return self._stored(info)

    def read_range(self, uri: str, offset: int, count: int, version: str | None = None) -> bytes:
        return _persist(uri, lambda: self._read_range(uri, offset, count, version))

    def _read_range(self, uri: str, offset: int, count: int, version: str | None) -> bytes:
        with self.open(uri) as file:
            if version is not None and not _may_be_at(version, file):
                raise RejectedImage("unreadable", REWRITTEN)
            if min(count, file.size() - offset) > MAX_SOURCE_BYTES:
                raise RejectedImage("too_large", f"{file.size()} bytes, the limit is {MAX_SOURCE_BYTES}")
            file.seek(offset)
            data = bytes(file.read(count))
        # Opening one of Azure's files does not tell its time, and it may be replaced before it is read. Of
        # Google's, pyarrow reads one generation.
        if self.scheme == "abfs" and version is not None and not _same_second(version, self._info(uri)):
            raise RejectedImage("unreadable", REWRITTEN)
        return data

    def exists(self, uri: str) -> bool:
        return bool(self._info(uri).type != pafs.FileType.NotFound)

    def is_folder(self, uri: str) -> bool:
        return bool(self._info(uri).type == pafs.FileType.Directory)

    def read_whole(self, uri: str) -> bytes:
        with arrow_file_system(uri).open_input_stream(_path(uri)) as stream:
            return bytes(stream.read())

    def open(self, uri: str) -> pa.NativeFile:
        return arrow_file_system(uri).open_input_file(_path(uri))

    def write(self, uri: str, durable: bool) -> AbstractContextManager[IO[bytes]]:
        def put(data: bytes) -> None:
            with arrow_file_system(uri).open_output_stream(_path(uri)) as stream:
                stream.write(data)

        return upload(put)

    def make_durable(self, uri: str) -> None:
        """A bucket does so itself."""

    def written_at_s(self, uri: str) -> float:
        return self._info(uri).mtime_ns / 1e9

    def list_names(self, folder: str) -> list[str]:
        selector = pafs.FileSelector(_path(folder), allow_not_found=True)
        return [info.base_name for info in arrow_file_system(folder).get_file_info(selector)]

    def list_files(self, folder: str, start: str | None = None) -> Iterator[list[StoredFile]]:
        """A page for each folder, depth first: pyarrow holds one folder's entries at a time.

        For Google it holds all of them, because it does not list the folders there, only the files at any
        depth. It cannot begin after `start`.
        """
        at_once = self.scheme == "gs"
        folders = [_path(folder)]
        while folders:
            path = folders.pop()
            try:
                found = arrow_file_system(folder).get_file_info(pafs.FileSelector(path, recursive=at_once))
            except OSError as error:
                raise PneumoniaError(
                    f"{self.scheme}://{path} cannot be listed ({error_text(error)}).", Remedy.CHECK_BUCKET
                ) from error
            found.sort(key=lambda info: info.path)
            yield [self._stored(info) for info in found if info.is_file]
            if not at_once:
                folders += [info.path for info in reversed(found) if info.type == pafs.FileType.Directory]

    def make_folder(self, uri: str) -> None:
        arrow_file_system(uri).create_dir(_path(uri), recursive=True)

    def delete_file(self, uri: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            arrow_file_system(uri).delete_file(_path(uri))

    def delete_folder(self, uri: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            arrow_file_system(uri).delete_dir(_path(uri))

    def _info(self, uri: str) -> pafs.FileInfo:
        return arrow_file_system(uri).get_file_info(_path(uri))

    def _stored(self, info: pafs.FileInfo) -> StoredFile:
        return StoredFile(f"{self.scheme}://{info.path}", info.size, f"{info.size}-{info.mtime_ns}")


def _persist(uri: str, attempt: Callable[[], Result]) -> Result:
    """What an attempt to read an image gives, tried again while its bucket fails.

    Raises RejectedImage or StorageUnavailable.
    """
    scheme, _, path = uri.partition("://")
    bucket = f"{scheme}://{path.partition('/')[0]}"
    with os_errors_rejected():
        try:
            return persist(bucket, attempt, is_transient, Purpose.IMAGE)
        except GaveUp as gave_up:
            is_timeout = isinstance(gave_up.cause, TimeoutError) or _TIMEOUT.search(str(gave_up.cause))
            raise_for_image(bucket, gave_up, bool(is_timeout))
        except OSError as error:
            if _COLD in str(error):
                raise RejectedImage("forbidden", COLD) from None
            raise


def is_transient(error: Exception) -> bool:
    """Whether an error of Google's or Azure's storage may pass: it is busy, fails or is out of reach."""
    if isinstance(error, FileNotFoundError | PermissionError) or not isinstance(error, OSError):
        return False
    # A name in quotes may look like any of these words.
    text = _QUOTED.sub("", str(error))
    return isinstance(error, TimeoutError | ConnectionError) or bool(_TRANSIENT.search(text))


def _path(uri: str) -> str:
    return uri.partition("://")[2]


def _may_be_at(version: str, opened: pa.NativeFile) -> bool:
    """Whether an opened file may be at a version: by its size, in Google's storage by its time too."""
    size, _, mtime_ns = version.partition("-")
    updated = opened.metadata().get("updated")
    if updated is not None and mtime_ns:
        since = datetime.datetime.fromisoformat(updated.decode()) - _EPOCH
        if since // datetime.timedelta(microseconds=1) != int(mtime_ns) // 1000:
            return False
    return size == str(opened.size())


def _same_second(version: str, info: pafs.FileInfo) -> bool:
    """Whether a file is at a version, by size and time to the second."""
    size, _, mtime_ns = version.partition("-")
    return size == str(info.size) and int(mtime_ns) // 10**9 == info.mtime_ns // 10**9


def arrow_file_system(uri: str) -> pafs.FileSystem:
    """Pyarrow's file system of a URI, also of a local one, for libraries that take one.

    Raises InvalidInput where a variable that it needs is not set.
    """
    scheme, _, path = uri.partition("://")
    return pafs.LocalFileSystem() if scheme == "file" else _bucket_file_system(scheme, path.partition("/")[0])


@cache
def _bucket_file_system(scheme: str, bucket: str) -> pafs.FileSystem:
    if scheme == "gs":
        # An emulator asks for no credentials, and there may be none.
        emulated = bool(os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT"))
        return pafs.GcsFileSystem(anonymous=emulated, retry_time_limit=_GS_RETRIES)
    return _azure() if scheme == "abfs" else _s3(bucket)


def forget_file_systems() -> None:
    """Build the file systems again at their next use, from the environment's variables as they are then."""
    _bucket_file_system.cache_clear()


def _s3(bucket: str) -> pafs.S3FileSystem:
    """Ray Train writes its checkpoints through it; everything else in S3 goes through boto3."""
    options: dict[str, Any] = {"retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=8)}
    if url := s3_settings.endpoint():
        options["scheme"], _, options["endpoint_override"] = url.rstrip("/").partition("://")
    elif not s3_settings.region():
        with contextlib.suppress(OSError):
            options["region"] = pafs.resolve_s3_region(bucket)
    if region := s3_settings.region():
        options["region"] = region
    if s3_settings.is_anonymous():
        options["anonymous"] = True
    if bundle := s3_settings.ca_bundle():
        options["tls_ca_file_path"] = bundle
    options["force_virtual_addressing"] = s3_settings.has_virtual_hosts()
    return pafs.S3FileSystem(connect_timeout=5, request_timeout=20, **options)


def azure_account() -> str | None:
    """The account that Azure's usual variables name."""
    named = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    return _azure_connection().get("AccountName") or named


def _azure_connection() -> dict[str, str]:
    return dict(
        pair.split("=", 1)
        for pair in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        if "=" in pair
    )


def _azure() -> pafs.FileSystem:
    """Azure's storage by its usual variables: a connection string, or the account's name with its key.

    Without a key it uses the identity of this machine.
    """
    connection = _azure_connection()
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
    account = azure_account()
    if not account:
        raise InvalidInput(
            "abfs:// needs the account's name in AZURE_STORAGE_ACCOUNT_NAME, or "
            "AZURE_STORAGE_CONNECTION_STRING."
        )
    options: dict[str, str | None] = {"account_key": connection.get("AccountKey") or key}
    if endpoint := connection.get("BlobEndpoint"):
        scheme, _, rest = endpoint.partition("://")
        for service in ("blob", "dfs"):
            options[f"{service}_storage_scheme"] = scheme
            options[f"{service}_storage_authority"] = rest.partition("/")[0]
    return pafs.AzureFileSystem(account, **options)
