"""Machines of a network of their own, as namespaces: each can be cut off, restored, and killed."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

# Only the namespaces have these addresses: they are in nobody's way.
_SUBNET: Final = "10.213.77"
_RAY_FOLDER: Final = Path("/tmp/ray")
_NEEDED: Final = ("ip", "unshare", "nsenter")


class _Namespaces:
    """Namespaces of these kinds, which live as long as their first process: with it, all others end."""

    def __init__(self, kinds: Sequence[str], prepare: str = ":") -> None:
        # The shell takes the place of init: it waits for orphans.
        script = f"{prepare} && echo ready && sleep infinity & while :; do wait; done"
        self._unshare = subprocess.Popen(
            ["unshare", *kinds, "--fork", "--kill-child", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != "ready\n":
            self.end()
            _, reason = self._unshare.communicate()
            pytest.skip(f"this machine has no namespaces: {reason.strip()}")
        unshare = self._unshare.pid
        self.pid = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().strip()

    def end(self) -> None:
        self._unshare.kill()
        self._unshare.wait()


@dataclass(frozen=True)
class Machine:
    """A machine: its address, processes and Ray folder are its own, its files are everybody's."""

    address: str
    port: str
    inside: _Namespaces
    switch: _Namespaces

    def command(self, arguments: Sequence[str]) -> list[str]:
        """These arguments as a command on this machine."""
        return ["nsenter", "--target", self.inside.pid, "--net", "--pid", "--mount", "--", *arguments]

    def cut_off(self) -> None:
        _ip(self.switch, "link", "set", self.port, "down")

    def restore(self) -> None:
        _ip(self.switch, "link", "set", self.port, "up")

    def kill(self) -> None:
        """SIGKILL for all that runs on this machine."""
        self.inside.end()


class Network:
    """A switch, and the machines that a test adds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._switch = _Namespaces(["--net"])
        self._machines: list[Machine] = []
        _ip(self._switch, "link", "add", "bridge", "type", "bridge")
        _ip(self._switch, "address", "add", f"{_SUBNET}.254/24", "dev", "bridge")
        _ip(self._switch, "link", "set", "bridge", "up")

    def add(self) -> Machine:
        number = len(self._machines) + 1
        folder = self._folder / f"machine-{number}"
        folder.mkdir()
        _RAY_FOLDER.mkdir(exist_ok=True)
        # Ray looks for nodes of this machine among its processes and in this folder.
        kinds = ("--net", "--pid", "--mount", "--mount-proc")
        inside = _Namespaces(kinds, f"mount --bind '{folder}' {_RAY_FOLDER}")
        machine = Machine(f"{_SUBNET}.{number}", f"port-{number}", inside, self._switch)
        self._machines.append(machine)
        ends = (machine.port, "type", "veth", "peer", "name", "eth0", "netns", inside.pid)
        _ip(self._switch, "link", "add", *ends)
        _ip(self._switch, "link", "set", machine.port, "master", "bridge", "up")
        _ip(inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip(inside, "link", "set", device, "up")
        # Ray finds its own address by the way to a public one.
        _ip(inside, "route", "add", "default", "via", f"{_SUBNET}.254")
        return machine

    def remove(self) -> None:
        for machine in self._machines:
            machine.kill()
        self._switch.end()


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network that ends with the block, with its processes. Skips the test where none can be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, _NEEDED)):
        pytest.skip(f"network namespaces need root and the commands {', '.join(_NEEDED)}")
    made = Network(folder)
    try:
        yield made
    finally:
        made.remove()


def _ip(inside: _Namespaces, *arguments: str) -> None:
    command = ["nsenter", "--target", inside.pid, "--net", "ip", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)
