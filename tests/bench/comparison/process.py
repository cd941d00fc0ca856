"""A command in a process of its own: its seconds, and the memory of all processes that it starts."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# A sample of a Ray cluster's processes takes 55 ms. All samples together may take this share of a core.
SAMPLING_SHARE: Final = 0.01
SAMPLE_EVERY_S: Final = 1.0  # or less often
# TensorFlow without its notes, Daft without telemetry, and a Ray that may start slowly on a busy machine.
_ENVIRONMENT: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "DO_NOT_TRACK": "1",
    "RAY_raylet_start_wait_time_s": "120",
}


@dataclass(frozen=True)
class Ended:
    """`seconds` from start to end of the process, and the largest sum of its tree's PSS in bytes."""

    seconds: float
    peak_pss_bytes: int
    output: str


class CommandFailed(Exception):
    """A command ended with another exit code than 0; the text holds the last lines of its stderr."""


def run_command(command: Sequence[str], folder: Path, **environment: str) -> Ended:
    """Run a command in this folder to its end. Raises CommandFailed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        settings = {**os.environ, **_ENVIRONMENT, **environment}
        settings.pop("RAY_ADDRESS", None)
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=settings, stdout=output, stderr=errors)
        sampler = _PssSampler(process.pid)
        code = process.wait()
        seconds = time.perf_counter() - started
        peak = sampler.stop()
        output.seek(0)
        errors.seek(0)
        if code != 0:
            lines = "".join(errors.readlines()[-15:])
            raise CommandFailed(f"{' '.join(command[:3])} … ended with exit code {code}:\n{lines}")
        return Ended(seconds, peak, output.read())


class _PssSampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        cost_s = 0.0
        while not self._ended.wait(max(SAMPLE_EVERY_S, cost_s / SAMPLING_SHARE)):
            started = time.thread_time()
            self._peak = max(self._peak, tree_pss_bytes(self._pid))
            cost_s = time.thread_time() - started

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self._peak


def tree_pss_bytes(pid: int) -> int:
    """The proportional set size of a process and its descendants: memory that is shared counts once."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    total, tree = 0, [pid]
    for member in tree:
        total += _pss_bytes(member)
        tree.extend(children.get(member, ()))
    return total


def parents() -> dict[int, int]:
    """The parent of each process of this machine."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            found[int(folder.name)] = int(fields[1])
    return found


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
