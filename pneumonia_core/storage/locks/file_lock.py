"""A lock on a disk: flock, which ends with its process."""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_file
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.owner import Owner

_NO_LOCKS: Final = frozenset((errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL))


class FileLock:
    """A lock that ends with its process."""

    def __init__(self, location: Location, descriptor: int) -> None:
        self._location = location
        self._descriptor = descriptor

    def check(self) -> None:
        """It cannot be lost."""

    def release(self) -> None:
        try:
            # Deleted while it is held: whoever locks the file next sees that it is no longer in its folder.
            delete_file(self._location)
        finally:
            os.close(self._descriptor)


def take_file_lock(location: Location) -> FileLock | None:
    """The lock on this file, or None where a living process has it or its last owner has removed it.

    Raises InvalidInput where its file system has no locks.
    """
    try:
        descriptor = os.open(location.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        # Its last owner has removed the folder.
        return None
    # Where its last owner has removed the file, the next process locks another file.
    if not _locks(location, descriptor, fcntl.LOCK_EX) or not _is_still_there(location, descriptor):
        os.close(descriptor)
        return None
    # Only people read it: the lock is good on a full disk too.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, Owner.of_process(os.getpid()).as_json(), 0)
    return FileLock(location, descriptor)


def is_file_locked(location: Location) -> bool:
    """Whether a living process has the lock on this file."""
    try:
        descriptor = os.open(location.path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _locks(location, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locks(location: Location, descriptor: int, how: int) -> bool:
    """Lock an open file, unless another process has it. Returns whether it did."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise InvalidInput(
                f"{location.parent.uri}: this file system has no locks ({error_text(error)}), without which "
                "two runs could write one table. Mount it with locks, or keep results on a local disk, NFS "
                "or S3.",
                Remedy.OTHER_RESULTS,
            ) from error
        raise
    return True


def _is_still_there(location: Location, descriptor: int) -> bool:
    try:
        found, opened = Path(location.path).stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
