"""Requests to a bucket, tried again for minutes: that a storage is busy says nothing about an image."""

import logging
import random
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NoReturn, TypeVar

from pneumonia_core.errors import RejectedImage, Remedy
from pneumonia_core.storage.errors import StorageUnavailable, error_code
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.traffic import Ending, traffic_of

_log = logging.getLogger(__name__)
_WARN_AFTER_S: Final = 5.0
# A request that waits for others looks so often whether it is still wanted.
_LOOK_AGAIN_AFTER_S: Final = 1.0
Result = TypeVar("Result")


class Purpose(Enum):
    """What a request is for, which decides how long it is tried."""

    # Given up before the end where the image alone fails.
    IMAGE = auto()
    OWN_FILE = auto()
    # Not behind others, and not for long.
    LEASE = auto()

    @property
    def give_up_after_s(self) -> float:
        return LIMITS.lease_give_up_after_s if self is Purpose.LEASE else LIMITS.give_up_after_s


class GaveUp(Exception):
    """A request failed in each attempt.

    `cause` is its last error. `others_succeeded`: the bucket answered other requests in that time, and this
    one was tried often enough.
    """

    def __init__(self, cause: Exception, attempts: int, waited_s: float, others_succeeded: bool) -> None:
        self.cause = cause
        self.attempts = attempts
        self.waited_s = waited_s
        self.others_succeeded = others_succeeded
        super().__init__(error_code(cause))


_thread = threading.local()


def heed(stop: threading.Event | None) -> None:
    """Let the requests of this thread give up once `stop` is set: a command that leaves waits for threads."""
    _thread.stop = stop


def heeded() -> threading.Event | None:
    """What this thread heeds: `heed` it in the threads that work for it."""
    return getattr(_thread, "stop", None)


def persist(
    bucket: str,
    attempt: Callable[[], Result],
    is_transient: Callable[[Exception], bool],
    purpose: Purpose,
) -> Result:
    """What `attempt` gives, tried again after pauses with full jitter while it fails by a transient error.

    `bucket` is a URI. Any other error is raised as it is; GaveUp where the time is used up.
    """
    failures = _Failures(bucket, purpose)
    while True:
        if not failures.enter():
            failures.give_up()
        entered_at = time.monotonic()
        ending: Ending = "refused"
        try:
            result = attempt()
            ending = "succeeded"
            return result
        except Exception as error:
            if not is_transient(error):
                raise
            ending = "failed"
            failure = error
        finally:
            failures.traffic.leave(entered_at, ending)
        failures.pause_after(failure)


class _Failures:
    """The failed attempts of one request, and what happened to other requests since the first of them."""

    def __init__(self, bucket: str, purpose: Purpose) -> None:
        self.traffic = traffic_of(bucket)
        self._until = time.monotonic() + purpose.give_up_after_s
        self._stop = heeded() or threading.Event()
        self._bucket = bucket
        self._purpose = purpose
        self._began_at = time.monotonic()
        self._last: Exception = TimeoutError()
        self._attempts = 0
        self._first_at = self._began_at
        self._succeeded_before = self._failed_before = 0

    def enter(self) -> bool:
        """Begin an attempt when the traffic lets it in. False where it does not in time."""
        if self._purpose is Purpose.LEASE:
            return self.traffic.enter()
        while not self._stop.is_set() and time.monotonic() < self._until:
            if self.traffic.enter(_LOOK_AGAIN_AFTER_S):
                return True
        return False

    def pause_after(self, error: Exception) -> None:
        """Wait for the next attempt. Raises GaveUp where there is none."""
        now = time.monotonic()
        self._last = error
        self._attempts += 1
        if self._attempts == 1:
            self._first_at = now
            self._succeeded_before, self._failed_before = self.traffic.succeeded, self.traffic.failed
        longest_s = min(LIMITS.backoff_s * 2 ** (self._attempts - 1), LIMITS.max_backoff_s)
        pause_s = random.uniform(0, longest_s)
        if now + pause_s > self._until or self._is_alone(now):
            self.give_up()
        if now - self._began_at > _WARN_AFTER_S and self.traffic.may_warn():
            _log.warning(
                f"{self._bucket} is busy or away ({error_code(error)}): requests are tried again for up to "
                f"{self._purpose.give_up_after_s:.0f} s"
            )
        if self._stop.wait(pause_s):
            self.give_up()

    def give_up(self) -> NoReturn:
        waited_s = time.monotonic() - self._began_at
        often = self._attempts >= LIMITS.least_attempts
        raise GaveUp(self._last, self._attempts, waited_s, often and self._others_succeeded > 0)

    @property
    def _others_succeeded(self) -> int:
        return self.traffic.succeeded - self._succeeded_before if self._attempts else 0

    def _is_alone(self, now: float) -> bool:
        """Whether this image fails while most other requests to the bucket succeed."""
        if self._purpose is not Purpose.IMAGE or self._attempts < LIMITS.least_attempts:
            return False
        # The first failure was counted before the count began.
        others_failed = self.traffic.failed - self._failed_before - (self._attempts - 1)
        return now - self._first_at >= LIMITS.blame_after_s and self._others_succeeded > others_failed


def raise_for_image(bucket: str, gave_up: GaveUp, is_timeout: bool) -> NoReturn:
    """Raise RejectedImage where the storage gave others, else StorageUnavailable."""
    if not gave_up.others_succeeded:
        raise StorageUnavailable(
            f"{bucket} did not answer for {gave_up.waited_s:.0f} s (attempts: {gave_up.attempts}, "
            f"last error: {error_code(gave_up.cause)}).",
            Remedy.WHEN_STORAGE_ANSWERS,
        ) from None
    if is_timeout:
        raise RejectedImage(
            "timeout", f"the storage did not answer in time in any of {gave_up.attempts} attempts"
        ) from None
    raise RejectedImage("unreadable", f"the storage failed in each of {gave_up.attempts} attempts") from None
