"""Runs risky work in child processes: requests over pipes, with limits on time, memory and CPU.

Requests and answers are `messages` of the types in the function's signature: what a child says that has
decoded a stranger's bytes is data, and never runs here.

Not `multiprocessing`, because its `spawn` imports the parent's `__main__` again, which in a Ray worker is
Ray's own program; its `fork` copies a process with threads, whose locks may be held forever; and its pools
neither limit a single request nor survive the death of a child
(`concurrent.futures.process.BrokenProcessPool`).
"""

import contextlib
import math
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final, Generic, TypeVar, cast

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.system import child_server
from pneumonia_core.system.child_server import LENGTH, Failure, framed, types_of
from pneumonia_core.system.import_path import import_path
from pneumonia_core.system.messages import Buffer, MalformedMessage, pack, unpack

START_LIMIT_S: Final = 60.0
MEMORY_LIMIT_BYTES: Final = 4 * 2**30
# A child that is killed from outside so often while it has the same request is on a machine in trouble.
MAX_KILLS: Final = 5
# A process does not send these to itself. SIGKILL also comes from the kernel where memory is short.
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
# From the end of a child's answers to the end of its process.
_ENDING_LIMIT_S: Final = 10.0
# A child that announces more is broken: its own memory is limited to as much.
_MAX_ANSWER_BYTES: Final = MEMORY_LIMIT_BYTES
Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Crashed:
    """Instead of an answer: the child ended on the request by its own fault.

    That is a signal of its own, such as SIGSEGV or SIGABRT, an exit, or an answer that is not one.
    """


@dataclass(frozen=True)
class TooSlow:
    """Instead of an answer: the child did not answer within `limit_s` seconds and was killed."""

    limit_s: float


class ChildPool(Generic[Request, Answer]):
    """Child processes that call a function of a module, each with one request at a time.

    The function takes one argument, the request. Its annotations are types that `messages` have.
    A child is started when a request finds none idle, and kept for the next request. `ask` may be called from
    several threads. What a child prints is discarded.
    """

    def __init__(
        self,
        function: Callable[[Request], Answer],
        limit_s: float,
        memory_bytes: int | None = MEMORY_LIMIT_BYTES,
        threads: int = 1,
    ) -> None:
        """`memory_bytes` is the address space that a child may have, and `threads` how many of its threads
        compute at once.
        """
        # A child imports the function by its name.
        self._arguments = [
            function.__module__,
            function.__qualname__,
            str(math.ceil(limit_s * threads)),
            str(resource.RLIM_INFINITY if memory_bytes is None else memory_bytes),
        ]
        self._answer = types_of(function)[1]
        self._limit_s = limit_s
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._children: set[_Child] = set()
        self._lock = threading.Lock()

    def ask(self, request: Request) -> Answer | Crashed | TooSlow:
        """What the function gives for `request`. The limit is for the whole answer, but not for a child's
        start.

        A child that is killed from outside says nothing about the request, which another child then gets.
        Raises PneumoniaError where a child does not start, where children are killed again and again, and
        where the function raises one. Any other exception of the function counts as a crash.
        """
        for _ in range(MAX_KILLS):
            answer = self._ask_one(request)
            if isinstance(answer, Failure):
                raise answer.as_error()
            if not isinstance(answer, _Killed):
                return cast("Answer | Crashed | TooSlow", answer)
        raise PneumoniaError(
            f"A child process was killed from outside {MAX_KILLS} times in a row: the machine is probably "
            "out of memory.",
            Remedy.FREE_MEMORY,
        )

    def _ask_one(self, request: Request) -> object:
        child = self._take()
        try:
            answer = unpack(child.ask(pack(request), self._limit_s), self._answer)
        except MalformedMessage:
            self._end(child)
            return Crashed()
        except TimeoutError:
            self._end(child)
            return TooSlow(self._limit_s)
        except EOFError:
            code = child.wait()
            self._end(child)
            return self._death(code)
        except BaseException:
            # An interrupted child may still write its answer, which the next request would get.
            self._end(child)
            raise
        self._idle.put(child)
        return answer

    def _death(self, code: int | None) -> "Crashed | TooSlow | _Killed":
        """What the exit code of a child says, which is minus the number of a signal."""
        if code is not None and -code in _FROM_OUTSIDE:
            return _Killed()
        return TooSlow(self._limit_s) if code == -signal.SIGXCPU else Crashed()

    def close(self) -> None:
        """Kill all children, those at work as well."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait()
        with self._lock:
            children, self._children = self._children, set()
        for child in children:
            child.kill()

    def _take(self) -> "_Child":
        with contextlib.suppress(queue.Empty):
            while True:
                child = self._idle.get_nowait()
                if child.is_alive():
                    return child
                # It ended without a request, so none is the cause.
                self._end(child)
        try:
            child = _Child(self._arguments)
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            raise PneumoniaError(
                "A child process did not start: the machine is probably out of memory.", Remedy.FREE_MEMORY
            ) from error
        with self._lock:
            self._children.add(child)
        return child

    def _end(self, child: "_Child") -> None:
        child.kill()
        with self._lock:
            self._children.discard(child)


@dataclass(frozen=True)
class _Killed:
    """Instead of an answer: the child was killed from outside, or by the kernel for want of memory."""


class _Child:
    """One child process and the parent's ends of its pipes."""

    def __init__(self, arguments: list[str]) -> None:
        # A program of its own: a fork of a process with threads may hang.
        # With -P it imports nothing from its working folder, which holds no archive either.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", child_server.__name__, *arguments],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path())},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        try:
            os.set_blocking(self._to.fileno(), False)
            os.set_blocking(self._from.fileno(), False)
            # `child_server` sends a first message when it is ready, so that the start does not count as work.
            self._receive(time.monotonic() + START_LIMIT_S)
        except BaseException:
            self.kill()
            raise

    def ask(self, request: Sequence[Buffer], limit_s: float) -> bytearray:
        """The answer's message. Raises TimeoutError past the limit, EOFError where the child died and
        MalformedMessage where its answer is too long; then kill it.
        """
        until = time.monotonic() + limit_s
        try:
            self._send(request, until)
        except BrokenPipeError:
            raise EOFError from None
        return self._receive(until)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int | None:
        """The exit code of a child whose answers have ended; None where its process lives on."""
        try:
            return self._process.wait(_ENDING_LIMIT_S)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._from.close()
        self._to.close()

    def _send(self, message: Sequence[Buffer], until: float) -> None:
        for part in framed(message):
            rest = memoryview(part)
            while rest:
                _wait_for(self._to, select.POLLOUT, until)
                rest = rest[os.write(self._to.fileno(), rest) :]

    def _receive(self, until: float) -> bytearray:
        length = LENGTH.unpack(self._read(LENGTH.size, until))[0]
        if length > _MAX_ANSWER_BYTES:
            raise MalformedMessage("a message that is too long")
        return self._read(length, until)

    def _read(self, count: int, until: float) -> bytearray:
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            _wait_for(self._from, select.POLLIN, until)
            read = os.readv(self._from.fileno(), [rest])
            if not read:
                raise EOFError
            rest = rest[read:]
        return data


def _wait_for(stream: IO[bytes], event: int, until: float) -> None:
    """Wait until the pipe can be read or written. Raises TimeoutError at `until`, by the monotonic clock."""
    poll = select.poll()
    poll.register(stream, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError
