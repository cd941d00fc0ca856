"""Temporary folders that outlive no process for long."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

PREFIX: Final = "pneumonia-scratch-"
# Between its creation and its lock a folder looks abandoned.
_NEW_FOR_S: Final = 60.0


class ScratchFolder:
    """A temporary folder that this process holds locked; `close` removes it."""

    def __init__(self, purpose: str) -> None:
        remove_left_behind()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{purpose}-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        _lock(self._lock)

    def close(self) -> None:
        self._folder.cleanup()
        os.close(self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def remove_left_behind() -> None:
    """Remove this user's scratch folders whose process ended without removing them."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # It may belong to another user, or be gone.
        with contextlib.suppress(OSError), _opened(path) as folder:
            status = os.fstat(folder)
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _NEW_FOR_S and _lock(folder):
                shutil.rmtree(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int) -> bool:
    """Lock an open folder until this process ends.

    Returns False where another process has the lock, or the storage has no locks.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
