"""An object in S3 as a file that can be read anywhere."""

import io
import os
from typing import Any

from pneumonia_core import objects
from pneumonia_core.errors import RejectedImage
from pneumonia_core.s3_errors import of_ours


class RangeFile(io.RawIOBase):
    """An object as it stands now, read by ranges: no two of them of different versions. Raises OSError."""

    def __init__(self, uri: str) -> None:
        self._position = 0
        try:
            self._found = objects.head(uri)
        except RejectedImage as rejected:
            raise of_ours(uri, rejected) from None

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
            data = objects.get(found.uri, self._position, count, found.version) if count else b""
        except RejectedImage as rejected:
            raise of_ours(found.uri, rejected) from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
