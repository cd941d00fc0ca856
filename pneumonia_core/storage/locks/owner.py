"""The process that holds a lock, as other processes read it."""

import datetime
import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    `started` is its start in the kernel's ticks, because process numbers are used again. `boot` identifies
    the processes that can see each other: the name of the machine, its last start, and the namespace of
    process numbers. Containers on one machine share the first two. `since` is when it took the lock, ISO
    8601, UTC; empty in locks of version 0.1.0.
    """

    token: str
    pid: int
    started: str | None
    boot: str
    since: str = ""

    @classmethod
    def of_process(cls, pid: int) -> "Owner":
        """A process of this machine as an owner from now on, under a new token."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(secrets.token_hex(8), pid, _started(pid), _boot(), now)

    @classmethod
    def from_json(cls, text: bytes) -> "Owner":
        owner = json.loads(text)
        return cls(owner["token"], owner["pid"], owner["started"], owner["boot"], owner.get("since", ""))

    def as_json(self) -> bytes:
        # With the time, because two writes with the same content would have the same version.
        return json.dumps({**asdict(self), "renewed_at": time.time()}).encode()

    @property
    def is_dead(self) -> bool:
        """Whether the owner is a process that this one would see, and has ended."""
        return self._is_seen_here and self.started != _started(self.pid)

    @property
    def is_alive_here(self) -> bool:
        """Whether this process sees that the owner lives."""
        return self._is_seen_here and self.started == _started(self.pid)

    @property
    def _is_seen_here(self) -> bool:
        return self.boot == _boot()

    def __str__(self) -> str:
        where = f"process {self.pid} on {self.boot.split()[0]}"
        if not self.since:
            return where
        since = datetime.datetime.fromisoformat(self.since)
        return f"{where} since {since:%Y-%m-%d %H:%M:%S} UTC"


def _boot() -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot_id} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path


def _started(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
