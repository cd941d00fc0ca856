"""Decoding in a child process: an image that kills or hangs its decoder costs one row, not its worker."""

import queue
import threading
from types import TracebackType
from typing import Final, Self

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.errors import REJECT_REASONS, PneumoniaError
from pneumonia_core.imaging.contract import Source
from pneumonia_core.scoring.chunk import Decoded, read_and_decode
from pneumonia_core.system.child_process import Child, serve

TIME_LIMIT_S: Final = 30


class IsolatedDecoder:
    """Children that decode, one for each call at a time; `decode` may be called from several threads."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._children: set[Child] = set()
        self._lock = threading.Lock()

    def decode(self, ref: ImageRef, image_size: int) -> Decoded:
        """As `scoring.read_and_decode`; the image whose child died or ran out of time has a row that says so."""
        child = self._take()
        try:
            answer = child.ask((ref, image_size), self._time_limit_s)
        except TimeoutError:
            self._end(child)
            return _rejected("too_slow", f"not decoded within {self._time_limit_s:.0f} s")
        except EOFError:
            self._end(child)
            return _rejected("crashed_decoder", "the decoding process died on it")
        self._idle.put(child)
        assert isinstance(answer, Decoded)
        return answer

    def close(self) -> None:
        for child in list(self._children):
            self._end(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> Child:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            child = _started()
            with self._lock:
                self._children.add(child)
            return child

    def _end(self, child: Child) -> None:
        child.kill()
        with self._lock:
            self._children.discard(child)


def _started() -> Child:
    try:
        return Child("pneumonia_core.scoring.isolation")
    except (OSError, EOFError) as error:  # one that runs out of time is an OSError too
        raise PneumoniaError(
            "a process to decode in did not start: the machine may be short of memory. What is finished is kept; run the "
            "same command again, with fewer --actors."
        ) from error


def _rejected(reason: str, detail: str) -> Decoded:
    return Decoded(None, None, Source(), None, REJECT_REASONS[reason].stage, reason, detail)


if __name__ == "__main__":
    serve(lambda question: read_and_decode(*question), TIME_LIMIT_S)
