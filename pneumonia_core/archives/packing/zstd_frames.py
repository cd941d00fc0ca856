"""Zstandard frames of any number and window, inflated in bounded memory (RFC 8878, section 3.1)."""

from typing import IO, Final

import pyarrow as pa

from pneumonia_core.errors import RejectedImage

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# 0x184D2A50 to 0x184D2A5F, in little-endian order.
_SKIPPABLE: Final = frozenset(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
# The largest window that the library takes. `zstd --long=31` in a pipe declares 2 GiB, whatever the content.
_MAX_WINDOW_LOG: Final = 27
_MAX_WINDOW_BYTES: Final = 2**_MAX_WINDOW_LOG
_LARGEST_WINDOW: Final = (_MAX_WINDOW_LOG - 10) << 3
_SINGLE_SEGMENT: Final = 0x20
_CHECKSUM: Final = 0x04
_DICTIONARY_BYTES: Final = (0, 1, 2, 4)
_SIZE_BYTES: Final = (0, 2, 4, 8)
_RLE_BLOCK: Final = 1
_PIECE: Final = 2**20


class ZstdStream:
    """Reads what the frames of a stream inflate to, one after another; skippable ones are left out.

    Raises EOFError where a frame is cut, OSError without a number where one is damaged, RejectedImage where
    one needs more of a window than the library has.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: pa.CompressedInputStream | None = None
        self._is_wide = False
        self._inflated = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, none at the end."""
        while self._frame is not None or self._opened_next():
            assert self._frame is not None
            piece = bytes(self._frame.read(count))
            self._inflated += len(piece)
            if self._is_wide and self._inflated > _MAX_WINDOW_BYTES:
                # From here on, the frame may repeat bytes that the library no longer holds.
                raise RejectedImage("unsupported", f"a zstd window of more than {_MAX_WINDOW_BYTES} bytes")
            if piece:
                return piece
            self._frame = None
        return b""

    def close(self) -> None:
        self._frame = None

    def _opened_next(self) -> bool:
        magic = self._raw.read(4)
        while magic in _SKIPPABLE:
            self._skip(int.from_bytes(_exactly(self._raw, 4), "little"))
            magic = self._raw.read(4)
        if not magic:
            return False
        if magic != _MAGIC:
            raise OSError("bytes that begin no zstd frame")
        frame = _Frame(self._raw)
        self._is_wide, self._inflated = frame.is_wide, 0
        self._frame = pa.CompressedInputStream(pa.PythonFile(frame, "r"), "zstd")
        return True

    def _skip(self, count: int) -> None:
        while count:
            count -= len(_exactly(self._raw, min(count, _PIECE)))


class _Frame:
    """The bytes of one frame, with a window that the library takes: a Python file to read.

    `is_wide` says that the frame declares a larger one.
    """

    closed = False

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        (descriptor,) = _exactly(raw, 1)
        single, size_flag = bool(descriptor & _SINGLE_SEGMENT), descriptor >> 6
        window = b"" if single else _exactly(raw, 1)
        self.is_wide = bool(window) and window[0] > _LARGEST_WINDOW
        if self.is_wide:
            window = bytes((_LARGEST_WINDOW,))
        size_bytes = 1 if single and not size_flag else _SIZE_BYTES[size_flag]
        rest = _exactly(raw, _DICTIONARY_BYTES[descriptor & 3] + size_bytes)
        self._ready = _MAGIC + bytes((descriptor,)) + window + rest
        self._block_bytes = 0
        self._is_last = False
        self._checksum_bytes = 4 if descriptor & _CHECKSUM else 0

    def read(self, count: int) -> bytes:
        if not self._ready and not self._block_bytes:
            self._next_block()
        if self._ready:
            piece, self._ready = self._ready[:count], self._ready[count:]
            return piece
        if not self._block_bytes:
            return b""
        piece = self._raw.read(min(count, self._block_bytes))
        if not piece:
            raise EOFError
        self._block_bytes -= len(piece)
        return piece

    def close(self) -> None:
        """The stream below belongs to whoever opened it."""

    def _next_block(self) -> None:
        """The header of the next block; after the last one, the checksum of the frame, once."""
        if self._is_last:
            self._ready = _exactly(self._raw, self._checksum_bytes)
            self._checksum_bytes = 0
            return
        self._ready = _exactly(self._raw, 3)
        header = int.from_bytes(self._ready, "little")
        self._is_last = bool(header & 1)
        self._block_bytes = 1 if (header >> 1) & 3 == _RLE_BLOCK else header >> 3


def _exactly(raw: IO[bytes], count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = raw.read(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
