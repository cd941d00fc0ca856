"""Decoding in a child process: an image that kills or hangs its decoder costs one row, not its worker."""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final

from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.scoring.decoding import Decode, decode_ahead, exit_if_stuck, read_and_decode
from pneumonia_core.scoring.prefetch import READERS_PER_CORE
from pneumonia_core.scoring.stage_clock import StageClock, TimedReaders, timed_decode
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow

TIME_LIMIT_S: Final = 30


def decode_all(
    refs: Iterable[ImageRef],
    image_size: int,
    threads: int,
    isolated: bool,
    trust_chest: bool = False,
    clock: StageClock | None = None,
) -> list[Decoded]:
    """All images in order, decoded in so many threads; with `isolated`, each in a child process.

    `clock` measures the stages of the work.

    This process ends where decoding an image never ends. Raises PneumoniaError where a child does not start.
    """
    in_flight = READERS_PER_CORE * threads
    with (
        decoder(isolated, trust_chest) as decode,
        ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool,
        ThreadPoolExecutor(in_flight, thread_name_prefix="read") as readers,
    ):
        reading: Executor = readers
        if clock is not None:
            decode, reading = timed_decode(decode, clock, isolated), TimedReaders(readers, clock)
        return list(exit_if_stuck(decode_ahead(refs, image_size, pool, reading, in_flight, decode)))


@contextlib.contextmanager
def decoder(isolated: bool, trust_chest: bool = False) -> Iterator[Decode]:
    """`decoding.read_and_decode` in this process or, as `isolated_decoder`, in children."""
    if not isolated:
        yield partial(read_and_decode, trust_chest=trust_chest)
        return
    with isolated_decoder(trust_chest=trust_chest) as decode:
        yield decode


@contextlib.contextmanager
def isolated_decoder(time_limit_s: float = TIME_LIMIT_S, trust_chest: bool = False) -> Iterator[Decode]:
    """`decoding.read_and_decode` in children, which end with the block; may be called from several threads.

    An image on which its child dies, or that takes too long, is rejected. Raises PneumoniaError where a child
    does not start.
    """
    children = ChildPool(_decode, time_limit_s)

    def decode(image: FetchedImage, image_size: int) -> Decoded:
        answer = children.ask((image, image_size, trust_chest))
        if isinstance(answer, TooSlow):
            return Decoded.rejected("too_slow", f"not decoded within {answer.limit_s:.0f} s")
        if isinstance(answer, Crashed):
            return Decoded.rejected("crashed_decoder", "the decoding process died on it")
        return answer

    with contextlib.closing(children):
        yield decode


def _decode(request: tuple[FetchedImage, int, bool]) -> Decoded:
    return read_and_decode(*request)
