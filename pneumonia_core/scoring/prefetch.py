"""Reads images ahead of decoding. A bucket answers late, but many requests at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Final, TypeVar

from pneumonia_core.archives.archive import fetch_image
from pneumonia_core.archives.entries import FetchedImage
from pneumonia_core.storage.limits import LIMITS

READERS_PER_CORE: Final = 16
# What is read and not yet decoded of one chunk, by the sizes that the listing gave.
MAX_BYTES_AHEAD: Final = 64 * 2**20
# Reading has limits of its own; where they fail, only the end of the process ends the thread. A member of a
# zip takes two requests, each of which may wait, and another chunk's images may be before it.
_STUCK_AFTER_S: Final = 4 * LIMITS.give_up_after_s
Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered(
    items: Iterable[Item],
    start: Callable[[Item], Future[Result] | Result],
    in_flight: int,
    size_bytes: Callable[[Item], int],
    max_bytes: int,
    stuck_after_s: float,
) -> Iterator[Result]:
    """The results of work on each item, in the order of the items.

    `start` begins the work in threads, or gives its result at once where there is nothing to wait for. Up to
    `in_flight` items are begun and not given out, and about `max_bytes` of them by their `size_bytes`. Raises
    TimeoutError where the work on one does not end.
    """
    begun: deque[tuple[int, Future[Result] | Result]] = deque()
    held = 0
    try:
        for item in items:
            size = size_bytes(item)
            held += size
            begun.append((size, start(item)))
            while begun and (
                len(begun) >= in_flight or held > max_bytes or not isinstance(begun[0][1], Future)
            ):
                size, oldest = begun.popleft()
                yield _result(oldest, stuck_after_s)
                held -= size
        while begun:
            yield _result(begun.popleft()[1], stuck_after_s)
    finally:
        # After an error nobody wants the others. The next chunk needs their threads.
        for _, work in begun:
            if isinstance(work, Future):
                work.cancel()


def _result(work: Future[Result] | Result, stuck_after_s: float) -> Result:
    return work.result(stuck_after_s) if isinstance(work, Future) else work


def with_remote_bytes(
    images: Iterable[FetchedImage], readers: Executor, in_flight: int, max_bytes: int = MAX_BYTES_AHEAD
) -> Iterator[FetchedImage]:
    """The same images in order, those that are not on this machine with their bytes, or why they have none.

    Up to `in_flight` of them are read at once, and no more than `max_bytes` ahead of the one that is given
    out. Raises TimeoutError where one does not end.
    """

    def start(image: FetchedImage) -> Future[FetchedImage] | FetchedImage:
        return readers.submit(fetch_image, image.ref) if _is_remote(image) else image

    return ordered(images, start, in_flight, _bytes_held, max_bytes, _STUCK_AFTER_S)


def _bytes_held(image: FetchedImage) -> int:
    """The memory that an image's source takes, or will take once it is read."""
    return len(image.content) if isinstance(image.content, bytes) else image.ref.size_bytes


def _is_remote(image: FetchedImage) -> bool:
    file = image.ref.file
    return image.content is None and file is not None and not file.startswith("file://")
