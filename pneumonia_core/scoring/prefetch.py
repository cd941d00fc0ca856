"""Reading ahead of decoding: a bucket answers late but many at once, so that many of its images are asked for."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Final

from pneumonia_core.archives.archive import read_image_bytes
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.errors import RejectedImage

READERS_PER_CORE: Final = 16
# What is read and not yet decoded of one chunk, by the sizes that the listing gave.
MAX_BYTES_AHEAD: Final = 64 * 2**20
# Storage has limits of its own; where they fail, only the end of the process ends the thread.
_STUCK_AFTER_S: Final = 240.0


def with_remote_bytes(refs: Iterable[ImageRef], readers: Executor, in_flight: int) -> Iterator[ImageRef]:
    """The same images in order, those that are not on this machine with their bytes, or the reason why they have none.

    Up to `in_flight` of them are read at once, and no more than 64 MiB ahead of the one that is given out. Raises
    TimeoutError where one does not end.
    """
    waiting: deque[tuple[ImageRef, Future[ImageRef] | None]] = deque()
    ahead = 0
    for ref in refs:
        ahead += bytes_held(ref)
        waiting.append((ref, readers.submit(_read, ref) if _is_remote(ref) else None))
        while waiting and (len(waiting) >= in_flight or ahead > MAX_BYTES_AHEAD or waiting[0][1] is None):
            first, future = waiting.popleft()
            ahead -= bytes_held(first)
            yield first if future is None else future.result(_STUCK_AFTER_S)
    for ref, future in waiting:
        yield ref if future is None else future.result(_STUCK_AFTER_S)


def bytes_held(ref: ImageRef) -> int:
    """The memory that an image's source takes, or will take once it is read."""
    return len(ref.data) if ref.data is not None else ref.size_bytes


def _is_remote(ref: ImageRef) -> bool:
    place = ref.uri if ref.member is None else ref.member.container
    return ref.data is None and ref.rejection is None and not place.startswith("file://")


def _read(ref: ImageRef) -> ImageRef:
    try:
        return replace(ref, data=read_image_bytes(ref))
    except RejectedImage as rejected:
        return replace(ref, rejection=(rejected.reason, rejected.detail))
