"""CPU seconds of the processes of a cluster on this machine, by what they are."""

import os
from collections import Counter
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# What a command line holds, and what such a process is. The first that fits counts.
_KINDS = {
    "raylet/raylet": "raylets",
    "gcs_server": "GCS",
    "ray::MapWorker": "actors",
    "ray::ChunkQueue": "queue",
    "ray::MapBatches": "source",
    "jobs.cli": "driver",
    "ray::": "other workers",
    "default_worker.py": "other workers",
    "ray/": "Ray's agents",
}


class ProcessTimes:
    """CPU seconds of this process's descendants since they were first looked at, for each kind.

    A process that has ended keeps what it had when it was last looked at.
    """

    def __init__(self) -> None:
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self.look()
        self._first = dict(self._last)
        self._machine_at_first = self._machine

    def look(self) -> None:
        self._machine = _machine_s()
        parents: dict[int, int] = {}
        times: dict[int, float] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                parents[int(folder.name)] = int(fields[1])
                times[int(folder.name)] = (int(fields[11]) + int(fields[12])) * _TICK_S
        for pid, seconds in times.items():
            if _descends(pid, os.getpid(), parents):
                self._last[pid] = seconds
                if (kind := _kind(pid)) is not None:
                    self._kinds[pid] = kind

    def by_kind(self) -> Counter[str]:
        """The machine's busy core seconds count under `machine`, whoever used them."""
        times = Counter[str]()
        for pid, seconds in self._last.items():
            times[self._kinds.get(pid, "others")] += seconds - self._first.get(pid, 0.0)
        times["machine"] = self._machine - self._machine_at_first
        return times


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == ancestor:
            return True
    return False


def _kind(pid: int) -> str | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    return next((kind for part, kind in _KINDS.items() if part in command), "others")


def _machine_s() -> float:
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) * _TICK_S
