"""A cluster of several nodes on this machine; each has failpoints of its own, and logs what it did."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pneumonia_core.system.failpoints import VARIABLE
from support.clusters import Rules
from support.processes import descendants, kill_with_descendants

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

MEMORY = 100 * 2**20


@dataclass(frozen=True)
class ClusterNode:
    """One node: its rules, and the files in which its workers write the chunks that they have done."""

    node: "Node"
    rules: Rules
    done_log: Path
    read_log: Path

    def workers_do(self, *rules: str) -> None:
        logged = (f"part.after=log:{self.done_log}", f"decode=log:{self.read_log}")
        self.rules.set(*logged, *rules)

    @property
    def done(self) -> list[str]:
        """The chunks that this node has done, in order."""
        return self.done_log.read_text().splitlines() if self.done_log.exists() else []

    @property
    def reads(self) -> list[str]:
        """The images that this node has read, in order."""
        return self.read_log.read_text().splitlines() if self.read_log.exists() else []

    @property
    def raylet(self) -> int:
        """The pid of its raylet."""
        (process,) = self.node.all_processes["raylet"]
        return int(process.process.pid)

    @property
    def actors(self) -> int:
        """Its living scoring actors."""
        return sum("ray::MapWorker" in name for name in descendants(self.raylet).values())


@dataclass(frozen=True)
class MountingNode:
    """A node with mounts of its own, and the file in which its workers write the chunks that they did."""

    started: subprocess.Popen[bytes]
    done_log: Path

    def lose(self, folder: Path) -> None:
        """An empty file system takes the place of the folder, on this node alone."""
        inside = ["nsenter", "--mount", "--target", str(self.started.pid)]
        subprocess.run([*inside, "mount", "-t", "tmpfs", "none", str(folder)], check=True)

    @property
    def done(self) -> list[str]:
        return self.done_log.read_text().splitlines() if self.done_log.exists() else []


def can_mount() -> bool:
    """Whether this process may give a node mounts of its own."""
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


class NodeCluster:
    """A head that has no CPU, and the nodes that a test adds."""

    def __init__(self, cluster: "Cluster", folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder
        self._count = 0

    @property
    def options(self) -> tuple[str, str]:
        return "--address", self.cluster.address

    def add(
        self, *rules: str, cpus: float = 1, gpus: float = 0, hash_key: str | None = "pepper"
    ) -> ClusterNode:
        """Add a node whose workers follow these failpoints."""
        self._count += 1
        name = f"node-{self._count}"
        own = Rules(self._folder / f"{name}.rules")
        own.set()
        environment = {VARIABLE: own.variable}
        if hash_key is not None:
            environment["PNEUMONIA_HASH_KEY"] = hash_key
        node = self.cluster.add_node(
            num_cpus=cpus, num_gpus=gpus, object_store_memory=MEMORY, env_vars=environment
        )
        added = ClusterNode(node, own, self._folder / f"{name}.done", self._folder / f"{name}.reads")
        added.workers_do(*rules)
        return added

    @contextlib.contextmanager
    def mounting_node(self, *rules: str) -> Iterator["MountingNode"]:
        """A node of one CPU that may lose a folder; its workers follow these failpoints."""
        self._count += 1
        name = f"node-{self._count}"
        own = Rules(self._folder / f"{name}.rules")
        done_log = self._folder / f"{name}.done"
        own.set(f"part.after=log:{done_log}", *rules)
        ray = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1")
        before = self._living
        started = subprocess.Popen(
            ["unshare", "--mount", *ray, "--address", self.cluster.address],
            env={**os.environ, VARIABLE: own.variable, "PNEUMONIA_HASH_KEY": "pepper"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_until_joined(before, started)
            yield MountingNode(started, done_log)
        finally:
            kill_with_descendants(started.pid)
            started.wait()

    @property
    def _living(self) -> set[str]:
        """Ray's numbers of the living nodes."""
        return set(self.cluster.global_state.total_resources_per_node())

    def _wait_until_joined(self, before: set[str], started: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + 60
        while not self._living - before:
            assert started.poll() is None, "the node ended before it joined the cluster"
            assert time.monotonic() < deadline, "the node has not joined the cluster"
            time.sleep(0.1)

    def remove(self, node: ClusterNode) -> None:
        """Kill a node with all its workers."""
        self.cluster.remove_node(node.node, allow_graceful=False)


@contextlib.contextmanager
def node_cluster(folder: Path) -> Iterator[NodeCluster]:
    """A cluster whose nodes end with the block."""
    from ray.cluster_utils import Cluster

    os.environ.pop("RAY_ADDRESS", None)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY},
    )
    try:
        yield NodeCluster(cluster, folder)
    finally:
        cluster.shutdown()
