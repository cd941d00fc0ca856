"""Machines of one network, as namespaces of this one: each can be cut off from the others and restored."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

# Only namespaces have these addresses: they are in nobody's way.
_SUBNET: Final = "10.213.77"
_RAY_FOLDER: Final = Path("/tmp/ray")


@dataclass(frozen=True)
class Machine:
    """A namespace with an address, and a Ray folder of its own as machines have."""

    name: str
    address: str
    folder: Path
    switch: str

    def command(self, arguments: Sequence[str]) -> list[str]:
        """These arguments as a command on this machine."""
        mount = f'mount --bind "$0" {_RAY_FOLDER} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "sh", "-c", mount, str(self.folder), *arguments]

    def cut_off(self) -> None:
        _ip("-n", self.switch, "link", "set", self._port, "down")

    def restore(self) -> None:
        _ip("-n", self.switch, "link", "set", self._port, "up")

    def kill(self) -> None:
        """SIGKILL all that runs on this machine."""
        for pid in _ip("netns", "pids", self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    @property
    def _port(self) -> str:
        return f"to-{self.address.rpartition('.')[2]}"


class Network:
    """A switch, in a namespace of its own, and the machines that a test adds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._switch = f"pneumonia-{os.getpid()}-switch"
        self.machines: list[Machine] = []
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self._switch, "address", "add", f"{_SUBNET}.254/24", "dev", "bridge")
        _ip("-n", self._switch, "link", "set", "bridge", "up")

    def add(self) -> Machine:
        number = next(self._numbers)
        name = f"pneumonia-{os.getpid()}-{number}"
        folder = self._folder / f"machine-{number}"
        folder.mkdir()
        _RAY_FOLDER.mkdir(exist_ok=True)
        machine = Machine(name, f"{_SUBNET}.{number}", folder, self._switch)
        self.machines.append(machine)
        _ip("netns", "add", name)
        ends = (f"to-{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("-n", self._switch, "link", "add", *ends)
        _ip("-n", self._switch, "link", "set", f"to-{number}", "master", "bridge", "up")
        _ip("-n", name, "address", "add", f"{machine.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        # Ray finds its own address by the way to a public one.
        _ip("-n", name, "route", "add", "default", "via", f"{_SUBNET}.254")
        return machine

    def remove(self) -> None:
        for machine in self.machines:
            machine.kill()
            _ip("netns", "delete", machine.name)
        _ip("netns", "delete", self._switch)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network that ends with the block, with its processes. Skips the test where none can be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the command `ip` (iproute2)")
    try:
        made = Network(folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine has no network namespaces: {error.stderr.strip()}")
    try:
        yield made
    finally:
        made.remove()


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
