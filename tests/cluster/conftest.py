"""A real Ray head with a token, as `ray start --head` makes it, and the command line to use it with."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.paths import REPOSITORY

MARK = "PNEUMONIA_TEST_HEAD"


@dataclass(frozen=True)
class Head:
    """A running head: the URL of its dashboard, its token, and an environment that finds both."""

    url: str
    token: str
    environment: dict[str, str]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", *words]

    def pneumonia(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `pneumonia WORDS…` as a person beside the head would; `changes` are to the environment."""
        return subprocess.run(
            self.command(*words),
            env={**self.environment, **changes},
            cwd=changes.get("PWD", REPOSITORY),
            capture_output=True,
            text=True,
            timeout=180,
        )

    def api(self, path: str) -> str:
        """What the Jobs API answers to the token's holder."""
        request = urllib.request.Request(
            f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()


@pytest.fixture(scope="module")
def head():
    # Short: the sockets' paths beneath it have a limit of 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))
    mark = secrets.token_hex(8)
    ports = dict(zip(("gcs", "dashboard", "client", "agent"), _free_ports(4), strict=True))
    token = secrets.token_hex(32)
    (folder / "home" / ".ray").mkdir(parents=True)
    (folder / "home" / ".ray" / "auth_token").write_text(token)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard']}",
    }
    log = (folder / "head.log").open("w")
    options = {
        "num-cpus": 2,
        "port": ports["gcs"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["agent"],
        "ray-client-server-port": ports["client"],
        "temp-dir": folder / "ray",
        "object-store-memory": 200_000_000,
    }
    start = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    process = subprocess.Popen(
        [*start, *(f"--{name}={value}" for name, value in options.items())],
        env={**environment, MARK: mark},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_until_up(process, environment["RAY_API_SERVER_ADDRESS"], folder / "head.log")
        yield Head(environment["RAY_API_SERVER_ADDRESS"], token, environment)
    finally:
        process.terminate()
        # It would wait half a minute for the actors that Ray Data keeps for the next job.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(4)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        left = _end_all(mark)
        process.wait(5)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"still running after the head: {left}"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=2).close()
        except urllib.error.HTTPError as answer:
            if answer.code == 401:  # it asks for its token
                return
            raise
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the head did not start: {log.read_text()[-2000:]}")


def _end_all(mark: str) -> list[str]:
    """What of the head's processes does not end by itself within 15 s; those are killed."""
    deadline = time.monotonic() + 15
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.3)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values())


def _marked(mark: str) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if words.strip():  # a zombie has none
                        found[int(folder.name)] = words[:120]
    return found
