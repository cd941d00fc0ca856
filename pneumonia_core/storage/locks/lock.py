"""The lock of a folder: flock on a disk, a lease in S3."""

import contextlib
import random
import time
from collections.abc import Iterator
from typing import Final

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import make_folder, read_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.file_lock import FileLock, is_file_locked, take_file_lock
from pneumonia_core.storage.locks.lease import TIMING, Lease, LeaseTiming, living_lease_owner, take_lease
from pneumonia_core.storage.locks.owner import Owner

Lock = FileLock | Lease
# A lease of a process that died expires after a minute.
_WAIT_S: Final = 180.0
_LONGEST_PAUSE_S: Final = 1.0


def take_lock(folder: Location, timing: LeaseTiming = TIMING) -> Lock | None:
    """The lock of a folder on a disk or in S3, or None where a living process has it. Raises OSError."""
    location = _location(folder)
    return take_file_lock(location) if folder.is_local else take_lease(location, timing)


@contextlib.contextmanager
def holding_lock(folder: Location, wait_s: float = _WAIT_S) -> Iterator[Lock]:
    """The lock of a folder, which is made where it is not there, until the block ends.

    Waits for other processes. Raises PneumoniaError where they keep it for longer than `wait_s` seconds.
    """
    make_folder(folder)
    until = time.monotonic() + wait_s
    pause_s = 0.02
    while (lock := take_lock(folder)) is None:
        if time.monotonic() > until:
            raise PneumoniaError(
                f"{folder.uri} was locked by {_described(read_owner(folder))} for {wait_s:.0f} s.",
                Remedy.RUN_AGAIN,
            )
        time.sleep(random.uniform(0, pause_s))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    try:
        yield lock
    finally:
        lock.release()


def find_holder(folder: Location, timing: LeaseTiming = TIMING) -> str | None:
    """The process that has the lock of a folder, in words, once it is known to live.

    None as soon as the lock is free: a lease is waited for until it is renewed or expires. Raises OSError.
    """
    location = _location(folder)
    if not folder.is_local:
        owner = living_lease_owner(location, timing)
        return None if owner is None else str(owner)
    return _described(read_owner(folder)) if is_file_locked(location) else None


def read_owner(folder: Location) -> Owner | None:
    """The process that has taken the lock of a folder last; None where the lock does not tell."""
    try:
        return Owner.from_json(read_bytes(_location(folder)))
    except (OSError, ValueError, KeyError):
        # It was released, another version took it, or the disk was full.
        return None


def _described(owner: Owner | None) -> str:
    return "another process" if owner is None else str(owner)


def _location(folder: Location) -> Location:
    return folder.child("lock")
