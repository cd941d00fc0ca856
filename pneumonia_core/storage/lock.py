"""The lock of a run: flock on a disk, in S3 a lease that its owner renews."""

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.files import delete_file
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.patience import Purpose, heed
from pneumonia_core.storage.s3 import objects as s3_objects

_log = logging.getLogger(__name__)


@dataclass
class LeaseTiming:
    """How often a lease is renewed, and after how long without a renewal another process may take it."""

    heartbeat_s: float = 15.0
    expires_after_s: float = 60.0


TIMING: Final = LeaseTiming()


class LeaseLost(PneumoniaError):
    """Another process may have taken the run over."""


class FileLock:
    """A lock that ends with its process."""

    def __init__(self, location: Location, descriptor: int) -> None:
        self._location = location
        self._descriptor = descriptor

    def check(self) -> None:
        """It cannot be lost."""

    def release(self, delete: bool = True) -> None:
        # Deleted while it is held: whoever locks the file next sees that it is no longer in its folder.
        if delete:
            delete_file(self._location)
        os.close(self._descriptor)


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    `started` is its start in the kernel's ticks, because process numbers are used again. `boot` identifies
    the machine since its last start, with its name: containers on one machine share the boot id, but not the
    name.
    """

    token: str
    pid: int
    started: str | None
    boot: str

    @classmethod
    def of_process(cls, pid: int) -> "Owner":
        """A process of this machine as an owner, under a new token."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(secrets.token_hex(8), pid, _started(pid), f"{socket.gethostname()} {boot_id}")

    @classmethod
    def from_json(cls, text: bytes) -> "Owner":
        owner = json.loads(text)
        return cls(owner["token"], owner["pid"], owner["started"], owner["boot"])

    def as_json(self) -> bytes:
        # With the time, because two writes with the same content would have the same version.
        return json.dumps({**asdict(self), "renewed_at": time.time()}).encode()

    @property
    def is_dead(self) -> bool:
        """Whether the owner is a process of this machine that has ended."""
        here = Owner.of_process(self.pid)
        return self.boot == here.boot and self.started != here.started


def _started(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


class Lease:
    """An object in S3 that its owner renews at each heartbeat.

    Another process may take it once it has expired, or at once when the owner was a process of the same
    machine that has ended.

    A renewal that fails is tried again at the next heartbeat. `check` raises where none succeeded in time, or
    another process has taken the lease. A bucket that is busy or away is waited for: a late renewal succeeds
    only while no other process has taken the lease.
    """

    def __init__(self, location: Location, owner: Owner, version: str, timing: LeaseTiming = TIMING) -> None:
        self._location = location
        self.owner = owner
        self._version = version
        self._timing = timing
        self._renewed = _now_s()
        self._lost = False
        self._bucket_fails = False
        self._attempted = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost where another process may have the run."""
        with self._attempted:
            self._attempted.wait_for(
                lambda: self._lost or not self._has_expired or not self._bucket_fails, LIMITS.give_up_after_s
            )
        if self._lost or self._has_expired:
            raise LeaseLost(
                f"{self._location.uri} was not renewed in time: another process may have taken the run over. "
                "Nothing was committed by this one.",
                Remedy.RUN_AGAIN,
            )

    @property
    def _has_expired(self) -> bool:
        return _now_s() - self._renewed > self._timing.expires_after_s

    def release(self, delete: bool = True) -> None:
        self._ending.set()
        self._thread.join()
        if not delete or self._lost:
            return
        try:
            s3_objects.delete([self._location.uri], Purpose.LEASE)
        except OSError as error:
            # The result of the run is valid, whatever becomes of its lease.
            _log.warning(
                f"{self._location.uri} cannot be deleted ({error_text(error)}); it expires in a minute"
            )

    def _renew(self) -> None:
        heed(self._ending)
        while not self._lost and not self._ending.wait(self._timing.heartbeat_s):
            self._renew_once()
            with self._attempted:
                self._attempted.notify_all()

    def _renew_once(self) -> None:
        asked = _now_s()
        try:
            # A bucket may carry out a write and lose its answer: the next write is then refused, although the
            # lease is still this process's.
            version = _write(self._location, self.owner, self._version) or _held(self._location, self.owner)
        except OSError as error:
            # The bucket fails for a moment; `check` knows for how long.
            self._bucket_fails = isinstance(error, BucketError)
            return
        self._bucket_fails = False
        if version is None:
            self._lost = True
            return
        self._version = version
        self._renewed = asked


def take_lock(folder: Location, timing: LeaseTiming = TIMING) -> FileLock | Lease | None:
    """The lock of a run's folder on a disk or in S3, or None where a living process has it."""
    location = folder.child("lock")
    return _take_file_lock(location) if folder.is_local else _take_lease(location, timing)


def _take_file_lock(location: Location) -> FileLock | None:
    try:
        descriptor = os.open(location.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        # Its last owner has removed the folder.
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not _is_still_there(location, descriptor):
        # Its last owner has removed the file: the next process locks another file.
        os.close(descriptor)
        return None
    return FileLock(location, descriptor)


def _is_still_there(location: Location, descriptor: int) -> bool:
    try:
        found, opened = Path(location.path).stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _take_lease(location: Location, timing: LeaseTiming) -> Lease | None:
    version = _free_version(location, timing)
    if version is None:
        return None
    owner = Owner.of_process(os.getpid())
    taken = _write(location, owner, version)
    # A bucket may ignore the condition, or lose its answer: what counts is what it holds afterwards.
    held = _held(location, owner)
    return None if held is None else Lease(location, owner, taken or held, timing)


def _free_version(location: Location, timing: LeaseTiming) -> str | None:
    """The version of a lease that may be replaced, "" for no lease, None where its owner is alive."""
    found = s3_objects.get_aged(location.uri)
    if found is None:
        return ""
    is_free = found.age_s > timing.expires_after_s or Owner.from_json(found.data).is_dead
    return found.version if is_free else None


def _now_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, as the time of other machines does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _write(location: Location, owner: Owner, version: str) -> str | None:
    """Write the lease over this version of it; its new version, or None where another process came first."""
    return s3_objects.put(location.uri, owner.as_json(), only_if=version)


def _held(location: Location, owner: Owner) -> str | None:
    """The version of the lease where this owner has it, else None."""
    found = s3_objects.get_aged(location.uri)
    return found.version if found and Owner.from_json(found.data).token == owner.token else None
