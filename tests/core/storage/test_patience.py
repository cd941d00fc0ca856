"""A bucket that is busy or away: requests wait, fewer at once; an image that fails alone is rejected."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.buckets import BUCKET, SLOW_DOWN, Proxy, s3_server, using

from pneumonia_core.errors import RejectedImage, Remedy
from pneumonia_core.storage.errors import StorageUnavailable
from pneumonia_core.storage.files import read_bytes, write_bytes
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.ranges import read_file
from pneumonia_core.storage.s3 import client as s3_client
from pneumonia_core.storage.traffic import Traffic, forget_traffic

READERS = 64
URIS = [f"s3://{BUCKET}/in/{number:03d}.jpeg" for number in range(100)]


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        client = s3_client.client()
        client.create_bucket(Bucket=BUCKET)
        for uri in URIS:
            client.put_object(Bucket=BUCKET, Key=uri.removeprefix(f"s3://{BUCKET}/"), Body=uri.encode())
        yield proxy


@pytest.fixture
def proxy(server):
    forget_traffic()
    yield server
    server.fail(None)
    server.delay_s = 0.0


@pytest.fixture
def quick(monkeypatch):
    """Waiting as in production, but for seconds."""
    for name, value in {"backoff_s": 0.05, "max_backoff_s": 0.2, "blame_after_s": 0.3}.items():
        monkeypatch.setattr(LIMITS, name, value)
    monkeypatch.setattr(LIMITS, "give_up_after_s", 1.0)


def read_all(uris: list[str]) -> dict[str, bytes | str]:
    """What each image holds, or the detail of its rejection."""

    def read(uri: str) -> bytes | str:
        try:
            return read_file(uri)
        except RejectedImage as rejected:
            return rejected.detail

    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(uris, readers.map(read, uris), strict=True))


@pytest.fixture
def later():
    """Calls a function after some seconds, and waits for it at the end."""
    timers: list[threading.Timer] = []

    def call(seconds: float, function: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, function))
        timers[-1].start()

    yield call
    for timer in timers:
        timer.join()


def test_images_of_a_throttled_bucket_are_read_with_fewer_requests_at_once_while_it_lasts(proxy):
    proxy.delay_s = 0.05
    proxy.fail("GET .*jpeg", refusal=SLOW_DOWN)
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(read_all, URIS)
        first = proxy.most_until_injected(10)
        proxy.most_until_injected(150)
        last = proxy.most_until_injected(180)
        proxy.fail(None)
        assert reading.result() == {uri: uri.encode() for uri in URIS}
    assert first >= 8 * last


def test_connections_that_break_for_a_while_cost_no_image(proxy, quick, later, monkeypatch):
    monkeypatch.setattr(LIMITS, "give_up_after_s", 30.0)
    proxy.fail("GET .*jpeg", always_cut=True)
    later(2.0, lambda: proxy.fail(None))
    assert read_all(URIS[:40]) == {uri: uri.encode() for uri in URIS[:40]}


def test_bucket_in_which_most_answers_fail_costs_no_image(proxy, quick, monkeypatch):
    monkeypatch.setattr(LIMITS, "give_up_after_s", 30.0)
    proxy.fail("GET .*jpeg", rate=0.8, refusal=SLOW_DOWN)
    assert read_all(URIS[:40]) == {uri: uri.encode() for uri in URIS[:40]}
    assert proxy.injected > 40


def test_bucket_that_stays_away_is_no_fact_about_its_images(proxy, quick):
    proxy.fail("GET .*jpeg", refusal=SLOW_DOWN)
    with pytest.raises(StorageUnavailable, match=r"s3://hospital did not answer for \d+ s") as raised:
        read_all(URIS[:8])
    assert raised.value.remedy is Remedy.WHEN_STORAGE_ANSWERS


def test_image_that_fails_alone_is_rejected_with_the_number_of_its_attempts(proxy, quick, monkeypatch):
    monkeypatch.setattr(LIMITS, "give_up_after_s", 30.0)
    began = proxy.injected
    proxy.fail("GET .*in/007.jpeg", refusal=SLOW_DOWN)
    read = read_all(URIS[:20])
    attempts = proxy.injected - began
    assert attempts >= LIMITS.least_attempts
    rejected = {uri: content for uri, content in read.items() if content != uri.encode()}
    assert rejected == {URIS[7]: f"the storage failed in each of {attempts} attempts"}


def test_own_files_wait_for_a_busy_bucket_also_while_others_are_answered(proxy, quick, later, monkeypatch):
    monkeypatch.setattr(LIMITS, "give_up_after_s", 30.0)
    own = open_location(f"s3://{BUCKET}/run/part")
    proxy.fail("(GET|PUT) .*run/part", refusal=SLOW_DOWN)
    later(1.5, lambda: proxy.fail(None))
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(read_all, URIS[:40])
        write_bytes(own, b"part")
        assert read_bytes(own) == b"part"
        assert reading.result() == {uri: uri.encode() for uri in URIS[:40]}


def test_requests_at_once_are_halved_once_for_all_that_fail_together_and_grow_with_success():
    traffic = Traffic()
    together = [traffic.enter(0.0) and time.monotonic() for _ in range(64)]
    for entered_at in together:
        traffic.leave(entered_at, "failed")
    assert admitted(traffic) == 32
    for _ in range(40):
        assert traffic.enter(0.0)
        traffic.leave(time.monotonic(), "succeeded")
    assert admitted(traffic) == 33
    for _ in range(20):
        traffic.enter(0.0)
        traffic.leave(time.monotonic(), "failed")
    assert admitted(traffic) == LIMITS.least_at_once


def admitted(traffic: Traffic) -> int:
    """How many requests it lets in at once."""
    count = 0
    while traffic.enter(0.0):
        count += 1
    for _ in range(count):
        traffic.leave(time.monotonic(), "refused")
    return count
