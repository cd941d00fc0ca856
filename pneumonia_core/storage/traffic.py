"""The requests of this process to one bucket: how many at once, and how many succeeded and failed."""

import math
import threading
import time
from typing import Final, Literal

from pneumonia_core.storage.limits import LIMITS

_WARN_EVERY_S: Final = 60.0
# A refusal, such as "no such key", says nothing about how busy the storage is.
Ending = Literal["succeeded", "failed", "refused"]


class Traffic:
    """Admits requests to a bucket, fewer at once while it fails (additive increase, multiplicative decrease).

    `succeeded` counts whole answers, `failed` attempts that the storage or the connection failed in.
    """

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self._admission = threading.Condition()
        self._most_at_once = float(LIMITS.most_at_once)
        self._at_once = 0
        self._lowered_at = -math.inf
        self._warned_at = -math.inf

    def enter(self, timeout_s: float | None = None) -> bool:
        """Begin a request when one more is allowed. False where it is not in time; None begins it at once."""
        with self._admission:
            may_begin = timeout_s is None or self._admission.wait_for(self._has_room, timeout_s)
            self._at_once += may_begin
            return may_begin

    def _has_room(self) -> bool:
        return self._at_once + 1 <= self._most_at_once

    def leave(self, entered_at: float, ending: Ending) -> None:
        """End a request that began at `entered_at` (time.monotonic())."""
        with self._admission:
            if ending == "failed":
                self.failed += 1
                self._lower(entered_at)
            elif ending == "succeeded":
                self.succeeded += 1
                raised = self._most_at_once + 1 / self._most_at_once
                self._most_at_once = min(raised, LIMITS.most_at_once)
            self._at_once -= 1
            self._admission.notify(2)

    def _lower(self, entered_at: float) -> None:
        """Halve the requests at once, and only once for all that were under way together."""
        if entered_at < self._lowered_at:
            return
        self._lowered_at = time.monotonic()
        self._most_at_once = max(min(self._at_once, self._most_at_once) / 2, LIMITS.least_at_once)

    def may_warn(self) -> bool:
        """Whether the last warning about this bucket was long ago. The caller then warns."""
        with self._admission:
            now = time.monotonic()
            if now - self._warned_at < _WARN_EVERY_S:
                return False
            self._warned_at = now
            return True


_traffic: dict[str, Traffic] = {}
_lock = threading.Lock()


def traffic_of(bucket: str) -> Traffic:
    """The traffic of a bucket, by its URI: one for the process."""
    with _lock:
        return _traffic.setdefault(bucket, Traffic())


def forget_traffic() -> None:
    """Begin with new counts, as a new process does."""
    with _lock:
        _traffic.clear()
