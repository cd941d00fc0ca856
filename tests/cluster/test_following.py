"""Following a job while the connection to its cluster breaks."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support.dashboard import JOB, Dashboard, running_dashboard
from support.http_servers import recorder
from support.paths import REPOSITORY

from cluster.client import connect
from cluster.follow import follow
from cluster.job_list import list_jobs
from cluster.time_limited_client import TimeLimitedClient
from jobs.console.command import Result
from pneumonia_core.errors import PneumoniaError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def dashboard(monkeypatch, tmp_path) -> Iterator[Dashboard]:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # so that monkeypatch undoes what connect sets
    monkeypatch.setenv("HOME", str(tmp_path))
    with running_dashboard() as server:
        yield server


def impatient_client(dashboard: Dashboard) -> TimeLimitedClient:
    return connect(dashboard.url, request_timeout_s=2.0)


def follow_impatiently(client: TimeLimitedClient) -> Result:
    return follow(client, JOB, lost_contact_s=0.4, poll_s=0.02)


def later(seconds: float, server: Dashboard, **changes: object) -> None:
    threading.Timer(seconds, lambda: vars(server).update(changes)).start()


def test_token_of_a_cluster_on_this_machine_goes_through_no_proxy(dashboard, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # so that monkeypatch undoes what connect sets
    dashboard.status = "SUCCEEDED"
    with recorder() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        client = impatient_client(dashboard)
        assert follow_impatiently(client)["exit_code"] == 0
        assert client.get_job_info(JOB).status == "SUCCEEDED"
    assert dashboard.asked
    assert not proxy.asked


def test_short_break_late_in_a_long_job_is_waited_out(dashboard, capsys):
    client = impatient_client(dashboard)
    later(0.8, dashboard, trouble="break")
    later(1.0, dashboard, trouble=None, status="SUCCEEDED")
    assert follow_impatiently(client) == {"state": "committed", "exit_code": 0, "job": JOB}
    assert capsys.readouterr().out == "run 1\n"


@pytest.mark.parametrize("trouble", ["break", "swallow", "forget"])
def test_cluster_that_stays_away_is_given_up_with_one_line(dashboard, trouble):
    client = impatient_client(dashboard)
    dashboard.trouble = trouble
    with pytest.raises(PneumoniaError, match=JOB) as error:
        follow_impatiently(client)
    assert "\n" not in str(error.value)
    assert dashboard.url in str(error.value)
    assert ("404" in str(error.value)) == (trouble == "forget")


def test_reader_of_the_log_who_leaves_ends_the_following(dashboard, monkeypatch):
    dashboard.status = "SUCCEEDED"
    client = impatient_client(dashboard)

    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        follow_impatiently(client)
    assert dashboard.asked < 5


@pytest.mark.parametrize("trouble", ["break", "swallow"])
def test_jobs_of_a_cluster_that_stops_answering_are_one_clear_message(dashboard, trouble):
    client = impatient_client(dashboard)
    dashboard.trouble = trouble
    with pytest.raises(PneumoniaError, match=dashboard.url) as error:
        list_jobs(client)
    assert "\n" not in str(error.value)


def test_ctrl_c_leaves_a_cluster_that_swallows_requests():
    """In a process of its own, as Ctrl-C comes there."""
    code = f"""
import os, sys
sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "tests")!r}]
os.environ.update(RAY_AUTH_MODE="disabled")
from cluster.client import connect
from cluster.follow import follow
from support.dashboard import JOB, running_dashboard
with running_dashboard() as server:
    server.trouble = "swallow"
    client = connect(server.url, request_timeout_s=2.0)
    print("following", flush=True)
    try:
        follow(client, JOB, poll_s=0.02)
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
