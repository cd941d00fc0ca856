"""A dashboard of a cluster that answers requests about one job, breaks off, or swallows them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JOB = "raysubmit_one"
LOG = 'run 1\n{"state": "committed"}\n'


class Dashboard(ThreadingHTTPServer):
    """Speaks as much of the Jobs API as following needs, without live logs, like a proxy without WebSockets.

    `trouble` is what happens to requests about jobs: None, `break`, `swallow` or `forget`.
    """

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


@contextmanager
def running_dashboard() -> Iterator[Dashboard]:
    """A dashboard that serves in a thread of this process."""
    server = Dashboard()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
