"""A lock in S3: an object that its owner renews, and that expires where it does not."""

import json
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.owner import Owner
from pneumonia_core.storage.patience import heed

_log = logging.getLogger(__name__)
# What an owner that has ended leaves: anyone may take the lease.
_RELEASED: Final = "released"


@dataclass
class LeaseTiming:
    """How often a lease is renewed, and after how long without a renewal another process may take it."""

    heartbeat_s: float = 15.0
    expires_after_s: float = 60.0


TIMING: Final = LeaseTiming()


class LeaseLost(PneumoniaError):
    """Another process may have taken the run over."""


class Lease:
    """An object in S3 that its owner renews at each heartbeat.

    Another process may take it once it has expired, or at once when the owner was a process of the same
    machine that has ended.

    Every write is on the condition that nobody else has written, so a renewal may be late: it succeeds while
    no other process has taken the lease, and an owner that comes too late takes nothing from its heir.
    """

    def __init__(self, location: Location, owner: Owner, version: str, timing: LeaseTiming = TIMING) -> None:
        self._location = location
        self.owner = owner
        self._version = version
        self._timing = timing
        self._renewed = _now_s()
        self._lost = False
        self._refused = False
        self._writing = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Renew a lease that is overdue. Raises LeaseLost where another process may have the run.

        A process that was stopped for minutes is overdue. A bucket that fails is waited for.
        """
        until = _now_s() + LIMITS.give_up_after_s
        while self._has_expired and not self._lost:
            self._renew_once()
            if self._refused or _now_s() > until:
                break
        if self._lost or self._has_expired:
            raise LeaseLost(
                f"{self._location.uri} was not renewed in time: another process may have taken the run over. "
                "Nothing was committed by this one.",
                Remedy.RUN_AGAIN,
            )

    @property
    def _has_expired(self) -> bool:
        return _now_s() - self._renewed > self._timing.expires_after_s

    def release(self) -> None:
        """Let others take the lease at once. It is not deleted: it may be another's by now."""
        self._ending.set()
        self._thread.join()
        if self._lost:
            return
        # Here and below, because botocore takes a while to import, and only S3 needs it.
        from pneumonia_core.storage.s3 import objects as s3_objects

        try:
            s3_objects.put(
                self._location.uri, json.dumps({_RELEASED: self.owner.token}).encode(), only_if=self._version
            )
        except OSError as error:
            # The result of the run is valid, whatever becomes of its lease.
            _log.warning(
                f"{self._location.uri} cannot be released ({error_text(error)}); it expires in a minute"
            )

    def _renew(self) -> None:
        heed(self._ending)
        while not self._lost and not self._ending.wait(self._timing.heartbeat_s):
            self._renew_once()

    def _renew_once(self) -> None:
        with self._writing:
            asked = _now_s()
            try:
                # A bucket may carry out a write and lose its answer: the next write is then refused, although
                # the lease is still this process's.
                version = _write(self._location, self.owner, self._version) or _held(
                    self._location, self.owner
                )
            except OSError as error:
                # A bucket that fails, other than one that refuses, is asked again.
                self._refused = not isinstance(error, BucketError)
                return
            self._refused = False
            if version is None:
                self._lost = True
                return
            self._version = version
            self._renewed = asked


def take_lease(location: Location, timing: LeaseTiming) -> Lease | None:
    """The lease, or None where its owner may live or another process came first. Raises OSError."""
    lease = _Found.at(location)
    if lease is not None and not lease.is_free(timing):
        return None
    owner = Owner.of_process(os.getpid())
    taken = _write(location, owner, lease.version if lease else "")
    # A bucket may lose its answer: what counts is what it holds afterwards.
    held = _held(location, owner)
    return None if held is None else Lease(location, owner, taken or held, timing)


def living_lease_owner(location: Location, timing: LeaseTiming, poll_s: float = 1.0) -> Owner | None:
    """The owner of a lease once it is known to live; None as soon as the lease is free.

    A process of another machine shows that it lives by its next renewal. Raises OSError.
    """
    first = lease = _Found.at(location)
    while lease is not None and first is not None and not lease.is_free(timing):
        if lease.owner and (lease.version != first.version or lease.owner.is_alive_here):
            return lease.owner
        time.sleep(poll_s)
        lease = _Found.at(location)
    return None


@dataclass(frozen=True)
class _Found:
    """A lease as it is in the bucket. `owner` is None where it was released."""

    owner: Owner | None
    version: str
    age_s: float

    @classmethod
    def at(cls, location: Location) -> "_Found | None":
        # Not at the top: see above.
        from pneumonia_core.storage.s3 import objects as s3_objects

        found = s3_objects.get_aged(location.uri)
        if found is None:
            return None
        owner = None if _RELEASED in json.loads(found.data) else Owner.from_json(found.data)
        return cls(owner, found.version, found.age_s)

    def is_free(self, timing: LeaseTiming) -> bool:
        return self.owner is None or self.age_s > timing.expires_after_s or self.owner.is_dead


def _now_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, as the time of other machines does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _write(location: Location, owner: Owner, version: str) -> str | None:
    """Write the lease over this version of it; its new version, or None where another process came first."""
    # Not at the top: see above.
    from pneumonia_core.storage.s3 import objects as s3_objects

    return s3_objects.put(location.uri, owner.as_json(), only_if=version)


def _held(location: Location, owner: Owner) -> str | None:
    """The version of the lease where this owner has it, else None."""
    lease = _Found.at(location)
    return lease.version if lease and lease.owner and lease.owner.token == owner.token else None
