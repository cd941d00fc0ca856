"""Compressed tars, which can be read from their beginning only.

A worker reads the members of a chunk in their order and keeps the stream for its next chunk, which is further
on. So it inflates such a tar about once, whatever the number of its chunks. A plain tar or a zip is read by
range.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from pneumonia_core.archives.containers.tar import read_tar_member
from pneumonia_core.archives.entries import FetchedImage, ImageRef, TarCompression, TarEntry
from pneumonia_core.archives.packing.inflaters import INFLATING_ERRORS, inflater, inflating_error
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.errors import REWRITTEN
from pneumonia_core.storage.ranges import open_stream, stat_file

_PIECE: Final = 2**20
_IDLE_STREAMS: Final = 4
# gzip inflates up to a thousandfold. No radiograph is that empty, and a bomb must end.
_MAX_INFLATION: Final = 200
_FREE_BYTES: Final = 2**30


class InflatingStream:
    """Reads the inflated bytes of a file, at growing offsets: a ReadAt. Raises RejectedImage where it cannot
    be opened.

    `key` is the URI and the version of the file, `position` the next offset.
    """

    def __init__(self, uri: str, compression: TarCompression) -> None:
        stored = self._stored = stat_file(uri)
        self.key = (uri, stored.version)
        self.position = 0
        self.failure: RejectedImage | None = None
        self._limit = _FREE_BYTES + _MAX_INFLATION * stored.size_bytes
        self._raw = open_stream(stored)
        self._file = inflater(self._raw, compression)

    def __call__(self, offset: int, count: int) -> bytes:
        """Raises RejectedImage, now and at every later offset, where the stream is cut, corrupt or a bomb."""
        if self.failure is not None:
            raise self.failure
        try:
            while self.position < offset:
                if not self._read(min(_PIECE, offset - self.position)):
                    return b""
            pieces = []
            while count and (piece := self._read(min(_PIECE, count))):
                pieces.append(piece)
                count -= len(piece)
            return b"".join(pieces)
        except BaseException as error:
            # After an error in the middle of reading, the position is unknown.
            interrupted = RejectedImage("unreadable", "the reading of the archive was interrupted")
            self.failure = error if isinstance(error, RejectedImage) else interrupted
            raise

    @property
    def is_reusable(self) -> bool:
        """Whether a later reader gets the truth about the file.

        Where the storage failed, a new stream may succeed.
        """
        return self.failure is None or self.failure.stage != "read"

    def _read(self, count: int) -> bytes:
        if self.position > self._limit:
            raise RejectedImage(
                "corrupt", f"the archive inflates to more than {_MAX_INFLATION} times its size"
            )
        try:
            piece = self._file.read(count)
        except INFLATING_ERRORS as error:
            raise inflating_error(error) from None
        self.position += len(piece)
        return piece

    def member(self, entry: TarEntry) -> bytes:
        """The bytes of a member. Raises RejectedImage, also where the tar changed since it was listed."""
        if not self._stored.is_at(entry.tar_version):
            raise RejectedImage("unreadable", REWRITTEN)
        return read_tar_member(self, entry.offset, entry.size_bytes)

    def close(self) -> None:
        self._file.close()
        self._raw.close()


idle_streams: list[InflatingStream] = []
_lock = threading.Lock()


def with_streamed_members(refs: Iterable[ImageRef]) -> Iterator[FetchedImage]:
    """The images in order, those in compressed tars with their bytes. The others are still to be read."""
    for tar, group in itertools.groupby(refs, _compressed_tar):
        if tar is None:
            yield from map(FetchedImage, group)
        else:
            yield from _read_in_order(*tar, group)


def _compressed_tar(ref: ImageRef) -> tuple[str, TarCompression] | None:
    match ref.source:
        case TarEntry(file=file, compression=compression) if compression is not None:
            return file, compression
    return None


def _read_in_order(uri: str, compression: TarCompression, refs: Iterable[ImageRef]) -> Iterator[FetchedImage]:
    stream: InflatingStream | None = None
    try:
        for ref in refs:
            entry = ref.source
            assert isinstance(entry, TarEntry)
            try:
                if stream is None or stream.position > entry.offset:
                    _put_back(stream)
                    # If no other can be opened, it is not put back twice.
                    stream = None
                    stream = _take(uri, compression, entry.offset)
                yield FetchedImage(ref, stream.member(entry))
            except RejectedImage as rejected:
                if stream is not None and not stream.is_reusable:
                    _put_back(stream)
                    stream = None
                yield FetchedImage(ref, rejected.rejection)
    finally:
        _put_back(stream)


def _take(uri: str, compression: TarCompression, offset: int) -> InflatingStream:
    """The idle stream of this file that is nearest before the offset, or a new one."""
    key = (uri, stat_file(uri).version)
    with _lock:
        fitting = [stream for stream in idle_streams if stream.key == key and stream.position <= offset]
        if fitting:
            nearest = max(fitting, key=lambda stream: stream.position)
            idle_streams.remove(nearest)
            return nearest
    return InflatingStream(uri, compression)


def _put_back(stream: InflatingStream | None) -> None:
    if stream is None:
        return
    if not stream.is_reusable:
        _close(stream)
        return
    with _lock:
        idle_streams.append(stream)
        closing = idle_streams.pop(0) if len(idle_streams) > _IDLE_STREAMS else None
    if closing is not None:
        _close(closing)


def _close(stream: InflatingStream) -> None:
    with contextlib.suppress(OSError):
        stream.close()
