"""Limits on waiting for a bucket, and on requests to it at once."""

from dataclasses import dataclass
from typing import Final


@dataclass
class Limits:
    """Limits of one process.

    A request that fails is tried again until `give_up_after_s`. One image is the cause before that where it
    failed in `least_attempts` and for `blame_after_s`, while most other requests to its bucket succeeded.
    """

    connect_timeout_s: float = 3
    read_timeout_s: float = 6
    # The longest pause before the second attempt. It doubles for each later one, up to the other limit.
    backoff_s: float = 0.5
    max_backoff_s: float = 10.0
    give_up_after_s: float = 200.0
    least_attempts: int = 4
    blame_after_s: float = 15.0
    # A lease expires after a minute: its next heartbeat is better than a longer wait.
    lease_give_up_after_s: float = 15.0
    most_at_once: int = 128
    least_at_once: int = 2
    # An answer that is slower for longer than this is asked for again from where it ended. A bucket may send
    # a byte every other second forever, and no radiograph comes that slowly.
    stall_after_s: float = 15.0
    least_bytes_per_s: int = 2**17


LIMITS: Final = Limits()
