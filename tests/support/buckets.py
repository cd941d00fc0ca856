"""An S3 server on this machine, and a proxy before it that counts, fails and cuts connections."""

import contextlib
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

from support.certificates import Certificate

BUCKET = "hospital"
SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_COLD_ERROR = b"<Error><Code>InvalidObjectState</Code><Message>restore it</Message></Error>"
IN_COLD_STORAGE = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(_COLD_ERROR)
    + _COLD_ERROR
)


@contextlib.contextmanager
def s3_server(certificate: Certificate | None = None) -> Iterator[str]:
    """The endpoint of a moto server in a process of its own, ended with the block; with TLS if certified."""
    process, endpoint = _started_server(certificate)
    try:
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _started_server(certificate: Certificate | None) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers: another process may take the port between its choice and its use."""
    scheme, options, trusted = "http", [], None
    if certificate is not None:
        options = ["--ssl", "--ssl-cert", str(certificate.certificate), "--ssl-key", str(certificate.key)]
        scheme, trusted = "https", ssl.create_default_context(cafile=certificate.authority)
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        endpoint = f"{scheme}://127.0.0.1:{port}"
        moto_api = f"{endpoint}/moto-api/"
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(moto_api, timeout=5, context=trusted):
                if process.poll() is None:
                    return process, endpoint
            time.sleep(0.1)
        process.kill()
        process.wait()
    raise RuntimeError("the S3 server did not start on any of five ports")


def environment(endpoint: str) -> dict[str, str]:
    """The usual variables of AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def using(endpoint: str) -> Iterator[None]:
    """This process, and what it starts, uses the endpoint."""
    before = dict(os.environ)
    os.environ.update(environment(endpoint))
    _forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        _forget()


def _forget() -> None:
    """Make the next request connect to S3 by the environment's variables as they are then."""
    from pneumonia_core.storage import arrow, traffic
    from pneumonia_core.storage.s3 import client, objects

    client.forget_client()
    objects.check_bucket.cache_clear()
    traffic.forget_traffic()
    arrow.forget_file_systems()


class Proxy:
    """Passes requests on, each connection in a thread, after `delay_s`.

    `to_client` counts the bytes of all answers, `most_at_once` the requests that waited at one time. With
    `hides_etags` no answer has an ETag. The headers `ignored` do not reach the server.

    A request whose first line matches `faults` is, with the probability `rate`, answered with 503 or cut in
    the middle of its answer, by turns, or always answered with `refusal`; requests with the same first line
    no more than `most` times.
    """

    def __init__(
        self,
        endpoint: str,
        faults: str | None = None,
        rate: float = 1.0,
        most: int = 10**9,
        refusal: bytes | None = None,
    ) -> None:
        self.delay_s = 0.0
        self.most_at_once = 0
        self.hides_etags = False
        self.ignored: tuple[bytes, ...] = ()
        self._at_once = 0
        self.to_client = 0
        self.injected = 0
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._random = random.Random(7)
        self.fail(faults, rate, most, refusal)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(
        self,
        faults: str | None,
        rate: float = 1.0,
        most: int = 10**9,
        refusal: bytes | None = None,
        always_cut: bool = False,
    ) -> None:
        """From now on these faults, None for no more."""
        self._always_cut = always_cut
        self._faults = re.compile(faults) if faults else None
        self._rate, self._most, self._refusal = rate, most, refusal
        self._failed: dict[str, int] = {}

    def most_until_injected(self, number: int) -> int:
        """The most requests at one time, from now until so many faults in all; `delay_s` makes them last."""
        self.most_at_once = 0
        until = time.monotonic() + 60
        while self.injected < number and time.monotonic() < until:
            time.sleep(0.01)
        return self.most_at_once

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        cut = threading.Event()
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError):
            threading.Thread(target=self._pass_on, args=(client, server, cut), daemon=True).start()
            try:
                while data := server.recv(65536):
                    # The server must have the whole request: a truncated one is not what a client would send.
                    cutting = cut.is_set() and not data.startswith(b"HTTP/1.1 100")
                    data = data[: len(data) // 2] if cutting else data
                    data = data.replace(b"ETag", b"XTag") if self.hides_etags else data
                    with self._lock:
                        self.to_client += len(data)
                    client.sendall(data)
                    if cutting:
                        return
            finally:
                # Closing alone tells the client nothing while the other thread waits for it.
                client.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        """What the client asks, up to a fault."""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self._wait()
                fault = self._choose(data)
                if fault == "refuse":
                    client.sendall(self._refusal or SLOW_DOWN)
                    break
                if fault == "cut":
                    cut.set()
                for header in self.ignored:
                    data = re.sub(rb"(?i)\r\n" + header + rb":[^\r]*", b"", data)
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        if not self.delay_s:
            return
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay_s)
        with self._lock:
            self._at_once -= 1

    def _choose(self, data: bytes) -> str | None:
        line = data.split(b"\r\n", 1)[0].decode("latin-1")
        if self._faults is None or not self._faults.search(line):
            return None
        with self._lock:
            if self._failed.get(line, 0) >= self._most or self._random.random() >= self._rate:
                return None
            self._failed[line] = self._failed.get(line, 0) + 1
            self.injected += 1
            if self._always_cut:
                return "cut"
            return "refuse" if self._refusal or self.injected % 2 else "cut"
