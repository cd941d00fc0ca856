"""A Ray cluster whose nodes are machines of a network of their own; each follows failpoints of its own."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumonia_core.system.failpoints import VARIABLE
from support.clusters import Rules
from support.networks import Machine, Network, network
from support.nodes import MEMORY
from support.paths import REPOSITORY
from support.processes import descendants

_PORT: Final = 6379
# Every machine has it, as in a cluster with token authentication.
_TOKEN: Final = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
_RAY: Final = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class MachineNode:
    """A node, and the files in which its workers write the chunks and images that they have done."""

    machine: Machine
    started: subprocess.Popen[bytes]
    rules: Rules
    done_log: Path
    read_log: Path

    def workers_do(self, *rules: str) -> None:
        self.rules.set(f"part.after=log:{self.done_log}", f"decode=log:{self.read_log}", *rules)

    def runs(self, name: str) -> bool:
        """Whether a process of this node has `name` in its command line."""
        return any(name in command for command in descendants(self.started.pid).values())

    @property
    def done(self) -> list[str]:
        """The chunks that this node has done, in order."""
        return self.done_log.read_text().splitlines() if self.done_log.exists() else []

    @property
    def reads(self) -> list[str]:
        """The images that this node has read, in order."""
        return self.read_log.read_text().splitlines() if self.read_log.exists() else []


class MachineCluster:
    """A head without CPUs, and the nodes that a test adds."""

    def __init__(self, machines: Network, folder: Path) -> None:
        self._machines = machines
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        self.head = machines.add()
        self.address = f"{self.head.address}:{_PORT}"
        self._start(self.head, "--head", "--port", str(_PORT), "--include-dashboard=false", "--num-cpus", "0")

    def add(self, *rules: str, cpus: float = 1) -> MachineNode:
        """Add a node whose workers follow these failpoints."""
        machine = self._machines.add()
        file, done, reads = (self._folder / f"{machine.address}.{of}" for of in ("rules", "done", "reads"))
        own = Rules(file)
        own.set()
        inherited = {VARIABLE: own.variable, "PNEUMONIA_HASH_KEY": "pepper"}
        options = ("--address", self.address, "--num-cpus", f"{cpus:g}")
        node = MachineNode(machine, self._start(machine, *options, **inherited), own, done, reads)
        node.workers_do(*rules)
        return node

    def run(self, machine: Machine, arguments: Sequence[object]) -> subprocess.Popen[str]:
        """A Python module with its arguments, as a command on this machine."""
        return subprocess.Popen(
            machine.command([sys.executable, "-m", *map(str, arguments)]),
            cwd=REPOSITORY,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _start(self, machine: Machine, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a node of Ray; returns when it runs."""
        own = ("--node-ip-address", machine.address, "--object-store-memory", str(MEMORY))
        log = self._folder / f"{machine.address}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                machine.command([str(_RAY), "start", "--block", *own, *options]),
                env=_environment(**environment),
                stdout=output,
                stderr=output,
            )
        self._started.append(process)
        deadline = time.monotonic() + 60
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the node did not start"
            time.sleep(0.1)
        return process

    def wait(self) -> None:
        """Wait for the end of its processes, which the network kills."""
        for process in self._started:
            process.wait()


@contextlib.contextmanager
def machine_cluster(folder: Path) -> Iterator[MachineCluster]:
    """A cluster that ends with the block."""
    with contextlib.ExitStack() as stack:
        machines = stack.enter_context(network(folder))
        cluster = MachineCluster(machines, folder)
        yield cluster
    cluster.wait()


def _environment(**more: str) -> dict[str, str]:
    left_out = ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS", VARIABLE)
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**inherited, **_TOKEN, **more}
