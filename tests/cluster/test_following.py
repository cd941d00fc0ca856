"""Staying with a job while the way to its cluster breaks: a dashboard that answers, breaks off, or swallows requests."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.paths import REPOSITORY

from cluster import client as cluster_client
from cluster import submit as cluster_submit
from cluster.client import connect
from cluster.job_list import list_jobs
from cluster.submit import follow
from pneumonia_core.errors import PneumoniaError

JOB = "raysubmit_one"
LOG = 'run 1\n{"state": "committed"}\n'


class Dashboard(ThreadingHTTPServer):
    """Speaks as much of the Jobs API as following needs, without live logs, as behind a proxy that has no
    WebSockets. `trouble` is what happens to requests about jobs: None, `break`, `swallow` or `forget`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.trouble: str | None = None
        self.status = "RUNNING"
        self.asked = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        if self.path == "/api/version":
            self._send(200, {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"})
            return
        self.server.asked += 1
        if self.server.trouble == "swallow":
            self.server.closing.wait(30)
        elif self.server.trouble == "forget":
            self._send(404, f"Job {JOB} does not exist")
        elif self.path == f"/api/jobs/{JOB}":
            if self.server.trouble is None:
                self._send(200, self._job())
        elif self.path == f"/api/jobs/{JOB}/logs" and self.server.trouble is None:
            self._send(200, {"logs": LOG})

    def _job(self) -> dict[str, object]:
        ended = self.server.status != "RUNNING"
        return {
            "type": "SUBMISSION",
            "submission_id": JOB,
            "job_id": None,
            "driver_info": None,
            "status": self.server.status,
            "entrypoint": "x",
            "driver_exit_code": 0 if ended else None,
        }

    def _send(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def dashboard(monkeypatch, tmp_path) -> Iterator[Dashboard]:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # so that what connect sets is taken back
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster_submit, "POLL_S", 0.02)
    monkeypatch.setattr(cluster_submit, "LOST_CONTACT_S", 0.4)
    monkeypatch.setattr(cluster_client, "REQUEST_TIMEOUT_S", 0.2)
    server = Dashboard()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


def later(seconds: float, server: Dashboard, **changes: object) -> None:
    threading.Timer(seconds, lambda: vars(server).update(changes)).start()


def test_short_break_late_in_a_long_job_is_waited_out(dashboard, capsys):
    client = connect(dashboard.url)
    later(0.8, dashboard, trouble="break")
    later(1.0, dashboard, trouble=None, status="SUCCEEDED")
    assert follow(client, JOB) == {"state": "committed", "exit_code": 0, "job": JOB}
    assert capsys.readouterr().out == "run 1\n"


@pytest.mark.parametrize("trouble", ["break", "swallow", "forget"])
def test_cluster_that_stays_away_is_given_up_with_one_line(dashboard, trouble):
    client = connect(dashboard.url)
    dashboard.trouble = trouble
    started = time.monotonic()
    with pytest.raises(PneumoniaError, match=f"no news of {JOB}") as error:
        follow(client, JOB)
    assert 0.4 <= time.monotonic() - started < 3
    assert ("404" in str(error.value)) == (trouble == "forget")


def test_reader_of_the_log_who_leaves_ends_the_following(dashboard, monkeypatch):
    dashboard.status = "SUCCEEDED"
    client = connect(dashboard.url)

    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        follow(client, JOB)
    assert dashboard.asked < 5


@pytest.mark.parametrize("trouble", ["break", "swallow"])
def test_jobs_of_a_cluster_that_stops_answering_are_one_clear_message(dashboard, trouble):
    dashboard.trouble = trouble
    with pytest.raises(PneumoniaError, match="did not list its jobs"):
        list_jobs(dashboard.url)


def test_ctrl_c_leaves_a_cluster_that_swallows_requests():
    """In a process of its own, as Ctrl-C comes there."""
    code = f"""
import os, sys, threading, time, _thread
sys.path[:0] = [{str(REPOSITORY)!r}, {str(Path(__file__).parent)!r}, {str(REPOSITORY / "tests")!r}]
os.environ.update(RAY_AUTH_MODE="disabled")
import test_following as here
here.cluster_client.REQUEST_TIMEOUT_S = 0.5
here.cluster_submit.POLL_S = 0.02
server = here.Dashboard()
server.trouble = "swallow"
threading.Thread(target=server.serve_forever, daemon=True).start()
client = here.connect(server.url)
print("following", flush=True)
try:
    here.follow(client, here.JOB)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "following\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert out == "interrupted\n"
