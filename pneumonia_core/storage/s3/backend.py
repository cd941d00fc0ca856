"""Buckets of S3 as a kind of storage."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO

import pyarrow as pa

from pneumonia_core.errors import InvalidInput, RejectedImage
from pneumonia_core.storage.backend import StoredFile, upload
from pneumonia_core.storage.errors import StorageUnavailable, as_own_object_error
from pneumonia_core.storage.range_reader import RangeReader
from pneumonia_core.storage.s3 import objects as s3_objects


class S3Backend:
    """Buckets of S3, by `s3://BUCKET/KEY`; implements `BucketBackend`."""

    def stat(self, uri: str) -> StoredFile:
        return s3_objects.stat(uri)

    def read_range(self, uri: str, offset: int, count: int, version: str | None = None) -> bytes:
        return s3_objects.get(uri, offset, count, version)

    def exists(self, uri: str) -> bool:
        if s3_objects.split_uri(uri)[1]:
            try:
                s3_objects.stat(uri)
                return True
            except RejectedImage as rejected:
                # Permission to list a folder is enough: S3 then answers 403 for the key of the folder itself.
                if rejected.reason == "forbidden" and self._is_listable(uri):
                    return True
                if rejected.reason != "not_found":
                    raise as_own_object_error(uri, rejected) from None
        return self.is_folder(uri)

    def _is_listable(self, uri: str) -> bool:
        try:
            return self.is_folder(uri)
        except InvalidInput:
            return False

    def is_folder(self, uri: str) -> bool:
        return any(s3_objects.list_pages(_prefix(uri)))

    def read_whole(self, uri: str) -> bytes:
        return s3_objects.get_whole(uri)

    def open(self, uri: str) -> pa.NativeFile:
        """Reads ranges, all of the version that the object has now."""
        try:
            stored = s3_objects.stat(uri)
        except (RejectedImage, StorageUnavailable) as error:
            raise as_own_object_error(uri, error) from None

        def read_at(offset: int, count: int) -> bytes:
            try:
                return s3_objects.get(uri, offset, count, stored.version)
            except (RejectedImage, StorageUnavailable) as error:
                raise as_own_object_error(uri, error) from None

        return pa.PythonFile(RangeReader(stored.size_bytes, read_at), "r")

    def write(self, uri: str, durable: bool) -> AbstractContextManager[IO[bytes]]:
        return upload(lambda data: s3_objects.put(uri, data))

    def make_durable(self, uri: str) -> None:
        """S3 does so itself."""

    def written_at_s(self, uri: str) -> float:
        return s3_objects.written_at_s(uri)

    def list_names(self, folder: str) -> list[str]:
        return s3_objects.list_folder(folder)

    def list_files(self, folder: str, start: str | None = None) -> Iterator[list[StoredFile]]:
        for page in s3_objects.list_pages(_prefix(folder), start):
            # A key that ends in a slash stands for a folder.
            yield [stored for stored in page if not stored.uri.endswith("/")]

    def make_folder(self, uri: str) -> None:
        s3_objects.check_bucket(s3_objects.split_uri(uri)[0])

    def delete_file(self, uri: str) -> None:
        s3_objects.delete([uri])

    def delete_folder(self, uri: str) -> None:
        for page in s3_objects.list_pages(_prefix(uri)):
            if page:
                s3_objects.delete([stored.uri for stored in page])


def _prefix(folder: str) -> str:
    return f"{folder.rstrip('/')}/"
