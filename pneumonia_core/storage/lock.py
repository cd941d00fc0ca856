"""The lock that says that a process is at work on a run: flock on a disk, a lease with a heartbeat in a bucket."""

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage import s3_objects
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_file, exists, read_bytes, write_bytes
from pneumonia_core.storage.location import Location

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 15.0
EXPIRES_AFTER_S: Final = 60.0
# Where a bucket knows no conditional writing, two racers see after so long who wrote last.
_SETTLE_S: Final = 2.0


class LeaseLost(PneumoniaError):
    """Another process may be at work on the run."""


class FileLock:
    """A lock that dies with its process."""

    def __init__(self, place: Location, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor

    def check(self) -> None:
        """It cannot be lost."""

    def release(self, delete: bool = True) -> None:
        # Deleted while it is held: whoever locks the file after us sees that it is no longer there.
        if delete:
            delete_file(self._place)
        os.close(self._descriptor)


class Lease:
    """A file in a bucket that its owner renews every 15 seconds; one that is older than 60, or whose owner is a
    dead process of this machine, may be taken over. A renewal that fails is tried again at the next heartbeat. Where
    none came through in time, or another has taken the lease, `check` raises."""

    def __init__(self, place: Location, token: str, version: str) -> None:
        self._place = place
        self._token = token
        self._version = version
        self._renewed = _now_s()
        self._lost = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LeaseLost where the run is no longer ours."""
        if self._lost or _now_s() - self._renewed > EXPIRES_AFTER_S:
            raise LeaseLost(
                f"{self._place.uri} was not renewed in time: another process may have taken the run over. Nothing was "
                "committed by this one; run the same command again."
            )

    def release(self, delete: bool = True) -> None:
        self._ending.set()
        self._thread.join()
        if not delete or self._lost:
            return
        try:
            delete_file(self._place)
        except OSError as error:
            # What the run did stands, whatever becomes of its lease.
            _log.warning(f"{self._place.uri} cannot be deleted ({error_text(error)}); it expires in a minute")

    def _renew(self) -> None:
        while not self._ending.wait(HEARTBEAT_S):
            asked = _now_s()
            try:
                # A bucket may have taken a writing and lost its answer: the next one is refused, and the lease ours.
                version = _write(self._place, self._token, self._version) or _held(self._place, self._token)
            except OSError:
                # The bucket fails for a moment; `check` knows how long it has been.
                continue
            if version is None:
                self._lost = True
                return
            self._version = version
            self._renewed = asked


def take_lock(folder: Location) -> FileLock | Lease | None:
    """The lock of a run's folder, or None where a living process has it."""
    place = folder.child("lock")
    return _take_file_lock(place) if folder.is_local else _take_lease(place)


def _take_file_lock(place: Location) -> FileLock | None:
    try:
        descriptor = os.open(place.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError:
        # Its last owner has removed the folder meanwhile.
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not _is_still_there(place, descriptor):
        # Its last owner has removed the file meanwhile: who comes next locks another one.
        os.close(descriptor)
        return None
    return FileLock(place, descriptor)


def _is_still_there(place: Location, descriptor: int) -> bool:
    try:
        found, opened = Path(place.path).stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _take_lease(place: Location) -> Lease | None:
    version = _free_version(place)
    if version is None:
        return None
    token = secrets.token_hex(8)
    taken = _write(place, token, version)
    if not place.is_s3:
        time.sleep(_SETTLE_S)
    # A bucket may take a condition for granted, or lose its answer: what counts is what it gives back.
    held = _held(place, token)
    return None if held is None else Lease(place, token, taken or held)


def _free_version(place: Location) -> str | None:
    """The version of the lease that may be replaced, "" where there is none; None where its owner is alive."""
    if not place.is_s3:
        if not exists(place):
            return ""
        info = place.fs.get_file_info(place.path)
        owner = json.loads(read_bytes(place))
        age_s = time.time() - info.mtime_ns / 1e9
        return "" if age_s > EXPIRES_AFTER_S or _is_dead(owner) else None
    found = s3_objects.get_aged(place.uri)
    if found is None:
        return ""
    if found.age_s > EXPIRES_AFTER_S or _is_dead(json.loads(found.data)):
        return found.version
    return None


def _now_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps: others' time does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    if owner["boot"] != _boot():
        return False
    return _started(owner["pid"]) != owner["started"]


def _boot() -> str:
    """This machine since it started: a container shares it with others, but not their names."""
    return f"{socket.gethostname()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks; process numbers are used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def _write(place: Location, token: str, version: str) -> str | None:
    """Write the lease over this version of it; its new version, or None where another was quicker."""
    owner = {"token": token, "pid": os.getpid(), "started": _started(os.getpid()), "boot": _boot()}
    # Else two writings by one owner would be of one version.
    data = json.dumps({**owner, "renewed_at": time.time()}).encode()
    if place.is_s3:
        return s3_objects.put(place.uri, data, only_if=version)
    write_bytes(place, data)
    return token


def _held(place: Location, token: str) -> str | None:
    """The version of the lease where it is this owner's, "" where the bucket knows none; None where it is not."""
    if place.is_s3:
        found = s3_objects.get_aged(place.uri)
        return found.version if found and json.loads(found.data)["token"] == token else None
    try:
        return "" if json.loads(read_bytes(place))["token"] == token else None
    except FileNotFoundError:
        return None
