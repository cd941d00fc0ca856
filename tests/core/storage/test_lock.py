"""The lock of a folder: one holder, taken over from a dead process, lost where it is not renewed."""

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time

import boto3
import pytest
from support.buckets import BUCKET, SLOW_DOWN, Proxy, s3_server, using

from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.storage.files import delete_folder, exists, read_bytes, write_bytes
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.locks.file_lock import FileLock
from pneumonia_core.storage.locks.lease import Lease, LeaseLost, LeaseTiming
from pneumonia_core.storage.locks.lock import find_holder, holding_lock, take_lock
from pneumonia_core.storage.locks.owner import Owner
from pneumonia_core.storage.s3 import objects as s3_objects


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint, using(endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture(params=["bucket", "disk"])
def folder(request, endpoint, tmp_path):
    location = open_location(f"s3://{BUCKET}/run" if request.param == "bucket" else str(tmp_path))
    yield location
    delete_folder(location)


def test_one_holds_it_and_another_gets_it_afterwards(folder):
    held = take_lock(folder)
    assert held
    assert take_lock(folder) is None
    assert find_holder(folder) == str(Owner.from_json(read_bytes(folder.child("lock"))))
    held.release()
    assert find_holder(folder) is None
    again = take_lock(folder)
    assert again
    again.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_disk_without_locks_is_told(tmp_path, monkeypatch, number):
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    folder = open_location(str(tmp_path))
    write_bytes(folder.child("lock"), b"")
    monkeypatch.setattr(fcntl, "flock", flock)
    for ask in (take_lock, find_holder):
        with pytest.raises(InvalidInput, match="this file system has no locks"):
            ask(folder)


def test_holder_is_told_by_process_machine_and_time(folder):
    with holding_lock(folder):
        holder = find_holder(folder)
    assert re.fullmatch(rf"process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", holder)


def test_lock_that_another_keeps_is_waited_for(folder):
    held = take_lock(folder)
    assert held
    with pytest.raises(PneumoniaError, match=f"locked by process {os.getpid()}"), holding_lock(folder, 0.1):
        pass
    released = threading.Event()

    def release() -> None:
        released.set()
        held.release()

    threading.Timer(0.3, release).start()
    with holding_lock(folder):
        assert released.is_set()
        assert take_lock(folder) is None


def test_of_racing_threads_one_wins(folder):
    won: list[object] = []
    threads = [threading.Thread(target=lambda: won.append(take_lock(folder))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holders = [holder for holder in won if holder]
    assert len(holders) == 1
    holders[0].release()


@pytest.fixture
def run(endpoint):
    location = open_location(f"s3://{BUCKET}/leased")
    yield location
    delete_folder(location)


def write_lease(run, **changes: object) -> None:
    owner = {"token": "t", "pid": 1, "started": "1", "boot": "another machine", "renewed_at": 0.0, **changes}
    write_bytes(run.child("lock"), json.dumps(owner).encode())


def test_lease_of_a_dead_process_of_this_machine_is_free_at_once(run):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    owner = Owner.of_process(dead.pid)
    dead.wait()
    assert owner.is_dead
    write_lease(run, pid=owner.pid, started=owner.started, boot=owner.boot)
    held = take_lock(run)
    assert held
    held.release()


def test_lease_of_another_container_on_this_machine_is_not_taken(run):
    """Two containers may have one host name, one kernel, and a process number that means another process."""
    here = Owner.of_process(os.getpid())
    write_lease(run, pid=2**22 + 1, boot=f"{here.boot.rpartition(' ')[0]} pid:[1]")
    assert take_lock(run) is None
    # Version 0.1.0 did not tell containers apart.
    write_lease(run, pid=2**22 + 1, boot=here.boot.rpartition(" ")[0])
    assert take_lock(run) is None
    write_lease(run, pid=2**22 + 1, boot=here.boot)
    held = take_lock(run)
    assert held
    held.release()


def test_owner_on_another_machine_lives_where_it_renews_its_lease(run):
    write_lease(run)
    renewal = threading.Timer(0.3, write_lease, [run], {"renewed_at": 1.0, "since": "2026-01-31T02:00:00"})
    renewal.start()
    assert find_holder(run) == "process 1 on another since 2026-01-31 02:00:00 UTC"


def test_lease_of_an_owner_that_died_elsewhere_is_waited_for_until_it_expires(run):
    write_lease(run)
    timing = LeaseTiming(expires_after_s=1.5)
    assert take_lock(run, timing) is None
    assert find_holder(run, timing) is None
    held = take_lock(run, timing)
    assert held
    held.release()


def test_lease_of_another_machine_is_free_when_it_is_old(run):
    write_lease(run)
    assert take_lock(run) is None
    held = take_lock(run, LeaseTiming(expires_after_s=-1.0))
    assert held
    held.release()


def test_lease_is_renewed_and_lost_to_another_owner(run):
    held = take_lock(run, LeaseTiming(heartbeat_s=0.2))
    assert isinstance(held, Lease)
    first = json.loads(read_bytes(run.child("lock")))["renewed_at"]
    time.sleep(1.5)
    assert json.loads(read_bytes(run.child("lock")))["renewed_at"] > first
    held.check()
    write_lease(run)
    time.sleep(1.5)
    with pytest.raises(LeaseLost, match="taken the run over"):
        held.check()
    held.release()
    assert json.loads(read_bytes(run.child("lock")))["token"] == "t"


def test_owner_that_comes_too_late_leaves_the_lease_to_its_heir(run):
    late = take_lock(run, LeaseTiming(heartbeat_s=60))
    timing = LeaseTiming(expires_after_s=-1.0)
    heir = take_lock(run, timing)
    timing.expires_after_s = 60
    assert isinstance(late, Lease)
    assert isinstance(heir, Lease)
    # It has not noticed: it would have to renew for that.
    late.release()
    assert json.loads(read_bytes(run.child("lock")))["token"] == heir.owner.token
    heir.check()
    heir.release()


def test_overdue_lease_that_nobody_has_taken_is_renewed(run):
    """A process that was stopped, or slept with its machine, for longer than its lease lasts."""
    timing = LeaseTiming(heartbeat_s=60)
    held = take_lock(run, timing)
    assert isinstance(held, Lease)
    timing.expires_after_s = 0.2
    time.sleep(0.3)
    held.check()
    delete_folder(run)
    time.sleep(0.3)
    with pytest.raises(LeaseLost):
        held.check()
    assert not exists(run.child("lock"))


DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def proxy(endpoint):
    with Proxy(endpoint) as proxy, using(proxy.endpoint):
        yield proxy


def test_renewal_that_fails_is_tried_again(run, proxy):
    held = take_lock(run, LeaseTiming(heartbeat_s=0.1))
    assert isinstance(held, Lease)
    # The answer to a write is lost: the next write is refused, and so is the read that checks the owner.
    proxy.fail("^GET .*lock", refusal=DENIED)
    write_lease(run, token=held.owner.token)
    until = time.monotonic() + 10
    while not proxy.injected and time.monotonic() < until:
        time.sleep(0.02)
    assert proxy.injected
    proxy.fail(None)
    while json.loads(read_bytes(run.child("lock")))["renewed_at"] == 0 and time.monotonic() < until:
        time.sleep(0.05)
    assert json.loads(read_bytes(run.child("lock")))["renewed_at"] > 0
    held.check()
    held.release()


def test_lease_is_taken_though_the_buckets_answers_break_off(run, proxy):
    write_lease(run, renewed_at=0.0)
    proxy.fail("^GET .*lock", most=2, always_cut=True)
    assert take_lock(run) is None  # another's, and young
    assert proxy.injected == 2


def test_renewal_that_keeps_failing_ends_the_run_when_the_lease_expires(run, proxy):
    timing = LeaseTiming(heartbeat_s=0.05)
    held = take_lock(run, timing)
    assert isinstance(held, Lease)
    proxy.fail("^PUT .*lock", refusal=DENIED)
    time.sleep(0.3)
    held.check()
    timing.expires_after_s = 0.2
    with pytest.raises(LeaseLost, match="not renewed in time"):
        held.check()
    held.release()


def test_bucket_that_is_away_for_longer_than_the_lease_lasts_is_waited_for(run, proxy, monkeypatch):
    monkeypatch.setattr(LIMITS, "lease_give_up_after_s", 0.2)
    held = take_lock(run, LeaseTiming(heartbeat_s=0.1, expires_after_s=0.5))
    assert isinstance(held, Lease)
    proxy.fail("(PUT|GET) .*lock", refusal=SLOW_DOWN)
    recovered = threading.Event()

    def recover() -> None:
        recovered.set()
        proxy.fail(None)

    threading.Timer(1.5, recover).start()
    time.sleep(0.8)
    held.check()
    assert recovered.is_set()
    # Another process that has taken the lease keeps it.
    proxy.fail("PUT .*lock", refusal=SLOW_DOWN)
    time.sleep(0.8)
    owner = {"token": "t", "pid": 1, "started": "1", "boot": "another machine", "renewed_at": 0.0}
    proxy.fail(None)
    s3_objects.put(run.child("lock").uri, json.dumps(owner).encode())
    with pytest.raises(LeaseLost):
        check_for_seconds(held, 10)
    held.release()


def check_for_seconds(held: Lease, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        held.check()
        time.sleep(0.05)


def test_lease_that_cannot_be_released_does_not_fail_the_run(run, proxy, caplog):
    held = take_lock(run)
    assert held
    proxy.fail("^PUT .*lock", refusal=DENIED)
    held.release()
    assert "it expires in a minute" in caplog.text


def test_lock_whose_file_its_last_owner_removed_is_none(tmp_path, monkeypatch):
    folder = open_location(str(tmp_path))
    held = take_lock(folder)
    assert isinstance(held, FileLock)
    flock = fcntl.flock

    def after_the_owner(*arguments):
        held.release()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", after_the_owner)
    assert take_lock(folder) is None
    monkeypatch.setattr(fcntl, "flock", flock)
    again = take_lock(folder)
    assert again
    again.release()
