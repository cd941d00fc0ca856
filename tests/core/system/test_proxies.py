"""A proxy of the environment never gets a request to this machine."""

import contextlib
import os
import urllib.error
import urllib.request

import pytest
import requests
from deltalake import DeltaTable
from support.buckets import using
from support.http_servers import recorder

from pneumonia_core.errors import RejectedImage
from pneumonia_core.results.table import storage_options
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.ranges import stat_file
from pneumonia_core.system.proxies import is_loopback, never_proxy_loopback


@pytest.fixture
def proxy(monkeypatch):
    for name in (
        "no_proxy",
        "NO_PROXY",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.setenv(name, "")  # so that monkeypatch undoes what is set
    with recorder() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        yield proxy


def test_clients_ask_this_machine_itself(proxy):
    with recorder() as server:
        url = server.url.replace("127.0.0.1", "localhost")
        never_proxy_loopback()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.build_opener().open(url)
        assert requests.get(url, timeout=10).status_code == 404
        assert len(server.asked) == 2
    assert not proxy.asked


def test_bucket_on_this_machine_is_asked_itself(proxy):
    """By Python and by Rust, also where the endpoint has another of the machine's addresses."""
    with recorder() as server, using(server.url):
        with contextlib.suppress(RejectedImage):
            stat_file("s3://hospital/1.jpeg")
        asked = len(server.asked)
        assert asked
        results = open_location("s3://hospital/results")
        with pytest.raises(Exception, match=r"(?i)not.?found|no (files|table)|404"):
            DeltaTable("s3://hospital/results/scores", storage_options=storage_options(results))
        assert len(server.asked) > asked
    assert not proxy.asked


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:8265", "http://127.1:8265", "http://[::1]:8265", "http://ray.localhost"]
)
def test_other_names_of_this_machine_are_excepted_when_they_are_used(proxy, monkeypatch, url):
    monkeypatch.setenv("NO_PROXY", "intranet, .example.org")
    never_proxy_loopback(url)
    assert requests.utils.should_bypass_proxies(url, no_proxy=None)
    assert urllib.request.proxy_bypass(url.partition("://")[2])
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    assert os.environ["no_proxy"].startswith("intranet,.example.org,localhost")


def test_other_machines_stay_behind_the_proxy(proxy):
    never_proxy_loopback("http://head.example.org:8265")
    assert not requests.utils.should_bypass_proxies("http://head.example.org:8265", no_proxy=None)


def test_environment_without_a_proxy_or_without_any_use_of_it_is_left_alone(monkeypatch, proxy):
    monkeypatch.setenv("NO_PROXY", "*")
    never_proxy_loopback()
    assert os.environ["NO_PROXY"] == "*"
    monkeypatch.delenv("http_proxy")
    monkeypatch.delenv("NO_PROXY")
    never_proxy_loopback()
    assert "NO_PROXY" not in os.environ


def test_names_of_this_machine():
    ours = [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "127.255.0.9",
        "127.1",
        "0x7f.1",
        "0.0.0.0",
        "::1",
    ]
    assert all(map(is_loopback, [*ours, "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["localhost.example.org", "10.0.0.1", "128.0.0.1", "::2", "head", ""]))
