"""What a child does in the tests of ChildPool: whatever the request says, however bad."""

import contextlib
import importlib.util
import os
import pickle
import signal
import time
from pathlib import Path

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.errors import StorageUnavailable


class Trap:
    """Its pickle makes a file of this name where it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.name),)


def answer(request: tuple[str, bytes | int | str | None]) -> bytes | int | str | None:
    kind, value = request
    if kind == "process":
        time.sleep(value)
        return os.getpid()
    if kind == "exit":
        os._exit(value)
    if kind == "signal":
        os.kill(os.getpid(), value)
    if kind == "killed at first":
        if not Path(value).exists():
            Path(value).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"
    if kind == "raise":
        raise PneumoniaError(value)
    if kind == "storage":
        raise StorageUnavailable(value, Remedy.WHEN_STORAGE_ANSWERS)
    if kind == "import":
        return "found" if importlib.util.find_spec(value) else "not found"
    if kind == "folder":
        return str(Path.cwd())
    if kind == "print":
        print(value, flush=True)
    if kind == "begin an answer":
        _write_to_every_pipe(value.to_bytes(8, "big") + b"the first bytes")
        time.sleep(60)
    if kind == "pickle":
        data = pickle.dumps(Trap(value))
        _write_to_every_pipe(len(data).to_bytes(8, "big") + data)
        time.sleep(60)
    if kind == "undeclared":
        return [value]
    if kind == "too long":
        _write_to_every_pipe(b"\xff" * 8)
        time.sleep(60)
    return value


def _write_to_every_pipe(data: bytes) -> None:
    for descriptor in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(descriptor, data)
