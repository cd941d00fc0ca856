"""What runs in a child process: it answers requests over pipes until they end (`child_process.ChildPool`)."""

import importlib
import io
import os
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final, Self, get_type_hints

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.system.messages import Buffer, pack, unpack

# Comes before each message.
LENGTH: Final = struct.Struct(">Q")


def types_of(function: Callable[..., object]) -> tuple[object, object]:
    """The declared types of a function's request, and of what a child says to it."""
    hints = get_type_hints(function)
    return next(iter(hints.values())), hints["return"] | Failure


@dataclass(frozen=True)
class Failure:
    """Instead of an answer: the PneumoniaError that the function raised."""

    kind: str
    text: str
    remedy: Remedy | None

    @classmethod
    def of(cls, error: PneumoniaError) -> Self:
        return cls(type(error).__name__, error.text, error.remedy)

    def as_error(self) -> PneumoniaError:
        """The error, of its own class where that is known here."""
        kinds = {kind.__name__: kind for kind in _kinds(PneumoniaError)}
        kind = kinds.get(self.kind, PneumoniaError)
        error = kind.__new__(kind)
        PneumoniaError.__init__(error, self.text, self.remedy)
        return error


def _kinds(kind: type[PneumoniaError]) -> list[type[PneumoniaError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _kinds(below))]


def framed(message: Sequence[Buffer]) -> list[Buffer]:
    return [LENGTH.pack(sum(map(len, message))), *message]


def _serve(function: Callable[[object], object], limit_s: int, memory_bytes: int) -> None:
    """Answer requests until they end, within the memory limit and `limit_s` seconds of CPU for each.

    The CPU limit ends a child whose parent died while the child computes.
    """
    if memory_bytes != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    declared = types_of(function)[0]
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    # What a library prints must not come between the answers.
    os.dup2(2, 1)
    _send_answer(answers, None)
    while header := requests.read(LENGTH.size):
        request = _read_request(requests, LENGTH.unpack(header)[0], declared)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + limit_s, resource.RLIM_INFINITY)
        )
        try:
            answer = function(request)
        except PneumoniaError as error:
            answer = Failure.of(error)
        _send_answer(answers, answer)


def _read_request(stream: io.BufferedReader, length: int, declared: object) -> object:
    # Arrays of the request are views of it; the engines want theirs writable.
    message = bytearray(length)
    stream.readinto(message)
    return unpack(message, declared)


def _send_answer(stream: IO[bytes], value: object) -> None:
    stream.writelines(framed(pack(value)))
    stream.flush()


if __name__ == "__main__":
    _module, _name, *_limits = sys.argv[1:]
    _serve(getattr(importlib.import_module(_module), _name), *map(int, _limits))
