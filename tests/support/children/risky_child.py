"""What a child does in the tests of ChildPool: whatever the request says, however bad."""

import contextlib
import os
import signal
import time
from typing import Any

from pneumonia_core.errors import PneumoniaError


def answer(request: tuple[str, Any]) -> Any:
    kind, value = request
    if kind == "process":
        time.sleep(value)
        return os.getpid()
    if kind == "exit":
        os._exit(value)
    if kind == "signal":
        os.kill(os.getpid(), value)
    if kind == "killed at first":
        if not value.exists():
            value.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"
    if kind == "raise":
        raise PneumoniaError(value)
    if kind == "print":
        print(value, flush=True)
    if kind == "begin an answer":
        _write_to_every_pipe(value.to_bytes(8, "big") + b"the first bytes")
        time.sleep(60)
    return value


def _write_to_every_pipe(data: bytes) -> None:
    for descriptor in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(descriptor, data)
