"""Compressed streams, inflated from their beginning: gzip, bzip2, xz and zstd, of any number of parts."""

import bz2
import gzip
import lzma
import zlib
from typing import IO, Final, Protocol

from pneumonia_core.archives.entries import TarCompression
from pneumonia_core.archives.packing.zstd_frames import ZstdStream
from pneumonia_core.errors import RejectedImage

# `xz -9` needs 65 MiB. A header may ask for 4 GiB.
_MAX_XZ_BYTES: Final = 256 * 2**20
_PIECE: Final = 2**16


class Inflater(Protocol):
    """Reads what a stream inflates to."""

    def read(self, count: int, /) -> bytes:
        """Up to `count` bytes, none at the end. Raises EOFError, OSError, or what the library raises."""
        ...

    def close(self) -> None:
        """Free what it holds; the stream below stays open."""
        ...


def inflater(raw: IO[bytes], compression: TarCompression) -> Inflater:
    """What `raw` inflates to."""
    if compression == "gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if compression == "bz2":
        return bz2.BZ2File(raw)
    if compression == "xz":
        return _XzStream(raw)
    return ZstdStream(raw)


def inflating_error(error: Exception) -> RejectedImage:
    """What an error of an inflater says of the file."""
    if isinstance(error, EOFError):
        return RejectedImage("truncated", "the archive ends before the member does")
    if isinstance(error, OSError) and error.errno:
        # An error with a number is the disk's; those of the inflating libraries have none.
        return RejectedImage("unreadable", f"the storage gave error number {error.errno}")
    return RejectedImage("corrupt", "the archive cannot be inflated to its end")


# What inflaters raise, besides RejectedImage of the storage or of a window that is too large.
INFLATING_ERRORS: Final = (EOFError, OSError, zlib.error, lzma.LZMAError)


class _XzStream:
    """The streams of an xz file. Python's own reader has no limit to the memory that a header asks for."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._ahead = b""
        self._decompressor: lzma.LZMADecompressor | None = None

    def read(self, count: int, /) -> bytes:
        while self._decompressor is not None or self._opened_next():
            assert self._decompressor is not None
            if self._decompressor.needs_input:
                self._ahead = self._ahead or self._raw.read(_PIECE)
                if not self._ahead:
                    raise EOFError
            piece, self._ahead = self._decompressor.decompress(self._ahead, count), b""
            if self._decompressor.eof:
                self._ahead = self._decompressor.unused_data
                self._decompressor = None
            if piece:
                return piece
        return b""

    def close(self) -> None:
        self._decompressor = None

    def _opened_next(self) -> bool:
        """Whether another stream follows: zeros may stand between them."""
        while not self._ahead.lstrip(b"\0"):
            self._ahead = self._raw.read(_PIECE)
            if not self._ahead:
                return False
        self._ahead = self._ahead.lstrip(b"\0")
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)
        return True
