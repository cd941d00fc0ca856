"""Finding and ending the processes of a command that a test started: by pid, never by name alone."""

import os
import signal
import time
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """The living processes begun by this one, at any depth, with their command lines."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text()
            names[int(folder.name)] = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found[child] = names.get(child, "")
            waiting.append(child)
    return found


def wait_for_process(pid: int, name: str, timeout_s: float = 60) -> int:
    """The pid of a descendant whose command line has `name` in it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for child, command in descendants(pid).items():
            if name in command:
                return child
        time.sleep(0.05)
    raise TimeoutError(f"no process {name!r} under {pid}")


def kill_with_descendants(pid: int) -> None:
    """SIGKILL a process and all it began, as a machine that dies."""
    for victim in [pid, *descendants(pid)]:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            continue
