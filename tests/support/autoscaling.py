"""A cluster that grows and shrinks by Ray's own autoscaler: its nodes are processes on this machine."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pneumonia_core.system.failpoints import VARIABLE
from support.clusters import Rules
from support.nodes import MEMORY
from support.paths import REPOSITORY

MARK = "PNEUMONIA_TEST_AUTOSCALER"
_PROVIDER = {
    # By its short name, `fake_multinode`, the second version would read that file too.
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
    "launch_multiple": True,
}
# Ray's name of such a head.
FAKE_HEAD_NODE_ID = "f" * 51 + "00000"
# What `ray.cluster_utils.AutoscalingCluster` would read from a file that the wheel of Ray lacks.
_CONFIGURATION = {
    "cluster_name": "pneumonia",
    "max_workers": 5,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.2,
    "head_node_type": "ray.head.default",
    "auth": {"ssh_user": "nobody"},
    "file_mounts": {},
    "cluster_synced_files": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


def _node_type(most: int, **resources: float) -> dict[str, object]:
    resources["object_store_memory"] = MEMORY
    return {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}


@dataclass(frozen=True)
class ScoringActor:
    """A living actor: its node, and the GPUs that Ray holds for it."""

    node_id: str
    gpus: float


class AutoscalingCluster:
    """A head without CPUs, and an autoscaler that adds nodes."""

    def __init__(self, address: str, rules: Rules, done_log: Path) -> None:
        # Ray takes a second to import.
        from ray._private.state import GlobalState
        from ray._raylet import GcsClientOptions

        self.address = address
        self._rules = rules
        self._done_log = done_log
        self._state = GlobalState()
        self._state._initialize_global_state(
            GcsClientOptions.create(address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
        )

    @property
    def options(self) -> tuple[str, str]:
        return "--address", self.address

    def workers_do(self, *rules: str) -> None:
        self._rules.set(f"part.after=log:{self._done_log}", *rules)

    @property
    def chunks_done(self) -> int:
        return len(self._done_log.read_text().splitlines()) if self._done_log.exists() else 0

    @property
    def nodes(self) -> list[str]:
        """The ids of the living nodes that were added."""
        table = self._state.node_table()
        return [node["NodeID"] for node in table if node["Alive"] and node["Resources"].get("CPU")]

    @property
    def scoring_actors(self) -> list[ScoringActor]:
        """The scoring actors that live now."""
        from ray.core.generated.gcs_pb2 import ActorTableData

        rows = self._state._connect_and_get_accessor().get_actor_table(None, "ALIVE")
        actors = [ActorTableData.FromString(row) for row in rows]
        return [
            ScoringActor(actor.address.node_id.hex(), dict(actor.required_resources).get("GPU", 0.0))
            for actor in actors
            if actor.name.startswith("score-")
        ]


@contextlib.contextmanager
def autoscaling_cluster(folder: Path, version: int = 1) -> Iterator[AutoscalingCluster]:
    """A cluster that may grow by three nodes, and by two with a GPU. All of it ends with the block.

    `version` is that of Ray's autoscaler: `ray up` starts the second one, `ray start` the first.
    """
    # Short: the sockets' paths beneath it have a limit of 107 characters.
    short = Path(tempfile.mkdtemp(prefix="pa-", dir="/tmp"))
    port, agent, client = _free_ports(3)
    rules, mark = Rules(folder / "rules"), secrets.token_hex(8)
    rules.set()
    address = f"127.0.0.1:{port}"
    kinds = {
        "ray.head.default": _node_type(0, CPU=0),
        "cpu": _node_type(3, CPU=1),
        "gpu": _node_type(2, CPU=1, GPU=1),
    }
    configuration = {**_CONFIGURATION, "available_node_types": kinds}
    configuration["provider"] = {**_PROVIDER, "gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID}
    (short / "autoscaler.json").write_text(json.dumps(configuration))
    options = {
        "num-cpus": 0,
        "node-ip-address": "127.0.0.1",
        "port": port,
        "dashboard-agent-listen-port": agent,
        "ray-client-server-port": client,
        "include-dashboard": "false",
        "temp-dir": short / "ray",
        "object-store-memory": MEMORY,
        "autoscaling-config": short / "autoscaler.json",
    }
    settings = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    own = {
        VARIABLE: rules.variable,
        "PNEUMONIA_HASH_KEY": "pepper",
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        MARK: mark,
        "RAY_enable_autoscaler_v2": str(int(version == 2)),
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    words = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            [*words, *(f"--{name}={value}" for name, value in options.items())],
            env={**settings, **own},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_up(process, port, folder / "head.log")
            yield AutoscalingCluster(address, rules, folder / "done")
        finally:
            _end(process, mark)
            shutil.rmtree(short, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.3)


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    """End the head, and what else has the mark: nodes that the autoscaler has started."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(2)
    # A process that is killed may have begun another one just before.
    while left := _marked(mark):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait(5)


def _marked(mark: str) -> list[int]:
    """The living processes with this mark in their environment; a zombie has none."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found
