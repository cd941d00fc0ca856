"""Decoding in a child process: an image that kills or hangs its decoder costs one row, not its worker."""

import contextlib
from collections.abc import Iterator
from typing import Final

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.errors import REJECT_REASONS
from pneumonia_core.imaging.contract import Source
from pneumonia_core.scoring.chunk import Decode, Decoded, read_and_decode
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow, serve

TIME_LIMIT_S: Final = 30


@contextlib.contextmanager
def isolated_decoder(time_limit_s: float = TIME_LIMIT_S) -> Iterator[Decode]:
    """`chunk.read_and_decode` in children, which end with the block; may be called from several threads.

    An image on which its child dies, or that takes too long, is rejected. Raises PneumoniaError where a child does
    not start.
    """
    children: ChildPool[Decoded] = ChildPool("pneumonia_core.scoring.isolation", time_limit_s)

    def decode(ref: ImageRef, image_size: int) -> Decoded:
        answer = children.ask((ref, image_size))
        if isinstance(answer, TooSlow):
            return _rejected("too_slow", f"not decoded within {answer.limit_s:.0f} s")
        if isinstance(answer, Crashed):
            return _rejected("crashed_decoder", "the decoding process died on it")
        return answer

    with contextlib.closing(children):
        yield decode


def _rejected(reason: str, detail: str) -> Decoded:
    return Decoded(None, None, Source(), None, REJECT_REASONS[reason].stage, reason, detail)


def _answer(request: tuple[ImageRef, int]) -> Decoded:
    return read_and_decode(*request)


if __name__ == "__main__":
    serve(_answer, TIME_LIMIT_S)
