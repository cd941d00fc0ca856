"""Decoding in a child process: an image that kills or hangs its decoder costs one row, not its worker."""

import os
import pickle
import queue
import resource
import select
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Final, Self

from pneumonia_core.errors import REJECT_STAGE, PneumoniaError
from pneumonia_core.images import Source
from pneumonia_core.members import ImageRef
from pneumonia_core.scoring import Decoded, read_and_decode

TIME_LIMIT_S: Final = 30.0
MEMORY_LIMIT_BYTES: Final = 4 * 2**30
_START_LIMIT_S: Final = 60.0
_LENGTH: Final = struct.Struct(">Q")


class IsolatedDecoder:
    """Children that decode, one for each call at a time; `decode` may be called from several threads."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._time_limit_s = time_limit_s
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._children: set[_Child] = set()
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

    def _take(self) -> "_Child":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            child = _Child()
            with self._lock:
                self._children.add(child)
            return child

    def _end(self, child: "_Child") -> None:
        child.kill()
        with self._lock:
            self._children.discard(child)


class _Child:
    """One decoding process, asked through its pipes."""

    def __init__(self) -> None:
        # A process of its own program: a fork of a process with threads may hang.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pneumonia_core.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        # It says that it is up, so that its start does not count as decoding time.
        _wait_readable(self._from, _START_LIMIT_S)
        _receive(self._from)

    def ask(self, question: tuple[ImageRef, int], time_limit_s: float) -> Decoded:
        """Raises TimeoutError past the limit and EOFError where the child died."""
        try:
            _send(self._to, question)
        except BrokenPipeError as error:
            raise EOFError from error
        _wait_readable(self._from, time_limit_s)
        answer = _receive(self._from)
        if isinstance(answer, PneumoniaError):
            raise answer
        assert isinstance(answer, Decoded)
        return answer

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()


def _rejected(reason: str, detail: str) -> Decoded:
    return Decoded(None, None, Source(), None, REJECT_STAGE[reason], reason, detail)


def _wait_readable(stream: IO[bytes], limit_s: float) -> None:
    if not select.select([stream], [], [], limit_s)[0]:
        raise TimeoutError


def _send(stream: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> object:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    data = stream.read(_LENGTH.unpack(header)[0])
    return pickle.loads(data)


def _serve() -> None:
    """The child: decodes what it is asked for until its input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a decoder prints must not come between the answers.
    os.dup2(2, 1)
    _send(answers, "up")
    while True:
        try:
            question = _receive(questions)
        except EOFError:
            return
        assert isinstance(question, tuple)
        try:
            _send(answers, read_and_decode(*question))
        except PneumoniaError as error:
            _send(answers, error)


if __name__ == "__main__":
    _serve()
