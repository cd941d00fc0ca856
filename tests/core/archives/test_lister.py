"""Listing several archives at once, and disks that fail while it goes on."""

import errno
import os
import shutil
import socket
import tempfile
import threading
import time

import pyarrow.parquet as pq
import pytest
from support.buckets import BUCKET, SLOW_DOWN, Proxy, s3_server, using
from support.images.archived import jpeg

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.archives.lister import Lister
from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client


def listed(archives, rules=None):
    with Lister(archives, rules or ListingRules()) as lister:
        assert lister.wait(30)
        uris = [uri for path in lister.take() for uri in pq.read_table(path)["image_uri"].to_pylist()]
        return uris, lister.skip_counts


def test_image_that_two_archives_name_is_listed_once(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpeg").write_bytes(jpeg(number))
    for name, numbers in (("one", (0, 1)), ("two", (1, 2))):
        lines = [f"{tmp_path}/images/{number}.jpeg" for number in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["uri", *lines]) + "\n")
    rules = ListingRules((), (f"file://{tmp_path}/images",))
    names = ("one.csv", "two.csv", "images")
    uris, skipped = listed([open_archive(str(tmp_path / name), rules) for name in names], rules)
    assert sorted(uris) == sorted({f"file://{tmp_path}/images/{number}.jpeg" for number in range(3)})
    assert skipped == {"in_earlier_archive": 4}


def test_command_that_leaves_waits_for_no_thread_that_waits_for_a_busy_bucket():
    """Python joins the threads of a pool when it ends, however long they wait."""
    with (
        s3_server() as endpoint,
        Proxy(endpoint, "(GET|HEAD) .*named", refusal=SLOW_DOWN) as proxy,
        using(proxy.endpoint),
    ):
        s3_client.client().create_bucket(Bucket=BUCKET)
        for number in range(40):
            write_bytes(open_location(f"s3://{BUCKET}/in/oddly-named-{number}"), jpeg(number))
        write_bytes(open_location(f"s3://{BUCKET}/m.csv"), b"uri\nin/oddly-named-1\nin/oddly-named-2\n")
        for archive in ("in", "m.csv"):
            injected = proxy.injected
            with Lister([f"s3://{BUCKET}/{archive}"]):
                proxy.most_until_injected(injected + 2)
            until = time.monotonic() + 60
            while pool_threads() and time.monotonic() < until:
                time.sleep(0.05)
            assert proxy.injected >= injected + 2
            assert not pool_threads()


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("sniff", "manifest"))]


@pytest.mark.parametrize("what", ["scandir", "stat"])
def test_disk_that_fails_ends_the_listing_instead_of_shortening_it(tmp_path, monkeypatch, what):
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "a.jpeg").write_bytes(jpeg(1))
    archive = open_archive(str(tmp_path))
    real = getattr(os, what)

    def failing(path, *arguments, **options):
        if str(path).endswith({"scandir": "ward", "stat": "a.jpeg"}[what]):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, what, failing)
    with pytest.raises(PneumoniaError, match="cannot be listed"):
        listed([archive])


@pytest.mark.parametrize(
    ("number", "exit_code"), [(errno.ESTALE, 1), (errno.EACCES, 2), (errno.ENAMETOOLONG, 2)]
)
def test_archive_whose_storage_fails_is_no_wrong_usage(tmp_path, monkeypatch, number, exit_code):
    def failing(path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(PneumoniaError, match="the archive cannot be opened") as raised:
        open_archive(str(tmp_path))
    assert raised.value.exit_code == exit_code


def test_order_is_that_of_the_names_whatever_the_disk_gives(tmp_path):
    for name in ("b/1.jpeg", "a.jpeg", "b.jpeg", "a/2.jpeg", "a/10.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(1))
    uris, _ = listed([open_archive(str(tmp_path))])
    assert [uri.removeprefix(f"file://{tmp_path}/") for uri in uris] == [
        "a/10.jpeg", "a/2.jpeg", "a.jpeg", "b/1.jpeg", "b.jpeg",
    ]  # fmt: skip


@pytest.mark.timeout(30)
def test_storage_that_stays_silent_is_left_when_the_listing_is_stopped():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        using(f"http://127.0.0.1:{silent.getsockname()[1]}"),
        Lister(["s3://hospital/in"], leave_after_s=0.1) as lister,
    ):
        assert not lister.wait(0.5)


def test_listing_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    for folder in ("in", "temporary"):
        (tmp_path / folder).mkdir()
    (tmp_path / "in" / "x.jpeg").write_bytes(jpeg(1))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    lister = Lister([f"file://{tmp_path}/in"])
    shutil.rmtree(tmp_path / "temporary")
    with lister:
        assert lister.wait(30)
        with pytest.raises(PneumoniaError, match="TMPDIR"):
            lister.take()
