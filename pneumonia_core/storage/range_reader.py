"""A file of which ranges can be read, as a Python file."""

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RangeReader(io.RawIOBase):
    """A seekable, read-only file over `read_at(offset, count)`, which gives `count` bytes, or raises."""

    def __init__(self, size_bytes: int, read_at: Callable[[int, int], bytes]) -> None:
        self._size_bytes = size_bytes
        self._read_at = read_at
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}
        self._position = offset + start[whence]
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        count = min(len(view), max(self._size_bytes - self._position, 0))
        data = self._read_at(self._position, count) if count else b""
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
