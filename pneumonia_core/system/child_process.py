"""A process of its own for work that may kill its process: asked and answered through pipes."""

import os
import pickle
import resource
import select
import struct
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, Final

START_LIMIT_S: Final = 60.0
MEMORY_LIMIT_BYTES: Final = 4 * 2**30
_LENGTH: Final = struct.Struct(">Q")


class Child:
    """A Python module that runs `serve` in a process of its own. What it prints is thrown away.

    Raises TimeoutError or EOFError where it does not start, OSError where there is no room for it.
    """

    def __init__(self, module: str) -> None:
        # A process of its own program: a fork of a process with threads may hang.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        # It says that it is up, so that its start does not count as work.
        try:
            self._answer(START_LIMIT_S)
        except BaseException:
            self.kill()
            raise

    def ask(self, question: object, limit_s: float) -> Any:
        """Its answer. Raises TimeoutError past the limit and EOFError where it died; it must then be killed."""
        try:
            _send(self._to, question)
        except BrokenPipeError:
            raise EOFError from None
        return self._answer(limit_s)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._from.close()
        try:
            self._to.close()
        except BrokenPipeError:
            return  # what it had not read of the last question is lost with it

    def _answer(self, limit_s: float) -> Any:
        if not select.select([self._from], [], [], limit_s)[0]:
            raise TimeoutError
        return _receive(self._from)


def serve(answer: Callable[[Any], Any], limit_s: int) -> None:
    """Answers questions until they end, within the memory limit and `limit_s` seconds of CPU for each: a child
    whose parent has died in the meantime does not compute for ever."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not come between the answers.
    os.dup2(2, 1)
    _send(answers, "up")
    while True:
        try:
            question = _receive(questions)
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + limit_s, resource.RLIM_INFINITY)
        )
        _send(answers, answer(question))


def _send(stream: IO[bytes], message: object) -> None:
    data = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        raise EOFError
    length = _LENGTH.unpack(header)[0]
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)
