"""Buckets: listed by pages with raw keys, read by range, retried within limits, and errors that fit."""

import gzip
import json
import socket
from collections import Counter

import boto3
import pytest
from support.buckets import BUCKET, Proxy, s3_server, using
from support.images.archived import contents, jpeg, listing, pictures, tar_bytes, zip_bytes

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.storage.errors import StorageUnavailable
from pneumonia_core.storage.files import (
    delete_file,
    delete_folder,
    exists,
    file_size,
    list_names,
    make_folder,
    open_file,
    read_bytes,
    write_bytes,
)
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import objects as s3_objects


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(endpoint):
    with using(endpoint):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        yield client
        delete_folder(open_location(f"s3://{BUCKET}"))


def test_keys_are_taken_as_they_are(s3):
    names = ["a b.jpeg", "ü.jpeg", "100%25.jpeg", "x#y.jpeg", "what?.jpeg", "d/e+f&g=h.jpeg"]
    for number, name in enumerate(names):
        s3.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=jpeg(number))
    images, _ = listing(f"s3://{BUCKET}/in")
    expected = {f"s3://{BUCKET}/in/{name}": jpeg(number) for number, name in enumerate(names)}
    assert contents(images) == expected
    assert [image.uri for image in images] == sorted(expected)


def test_version_is_the_etag_and_changes_with_the_content(s3):
    versions = []
    for number in (1, 1, 2):
        s3.put_object(Bucket=BUCKET, Key="in/x.jpeg", Body=jpeg(number))
        versions.append(listing(f"s3://{BUCKET}/in")[0][0].version)
    assert versions[0] == versions[1] != versions[2]


def test_what_is_no_image_is_counted_and_archives_are_opened(s3):
    tar = tar_bytes({"m.jpeg": jpeg(2)})
    for name, body in {
        "1.2.840.55": jpeg(1), "notes": b"text", "notes.txt": b"", "__MACOSX/x.jpeg": b"", "t.tar": tar,
        "a/.hidden/x.jpeg": b"", "z.zip": zip_bytes({"n.jpeg": jpeg(3)}),
    }.items():  # fmt: skip
        s3.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=body)
    s3.put_object(Bucket=BUCKET, Key="in2/other.jpeg", Body=jpeg(4))
    images, skipped = listing(f"s3://{BUCKET}/in")
    root = f"s3://{BUCKET}/in"
    assert contents(images) == {
        f"{root}/1.2.840.55": jpeg(1), f"{root}/t.tar!/m.jpeg": jpeg(2), f"{root}/z.zip!/n.jpeg": jpeg(3),
    }  # fmt: skip
    assert skipped == {"hidden": 2, "no_image": 2}


@pytest.mark.parametrize("marker", ["in", "in/", "in/2026", "in_$folder$"])
def test_object_of_no_bytes_that_bears_the_name_of_a_folder_hides_nothing(s3, marker):
    s3.put_object(Bucket=BUCKET, Key=marker, Body=b"")
    s3.put_object(Bucket=BUCKET, Key="in/2026/x.jpeg", Body=jpeg(1))
    for archive in (f"s3://{BUCKET}/in", f"s3://{BUCKET}/in/2026", f"s3://{BUCKET}/in/"):
        images, skipped = listing(archive)
        assert list(contents(images).values()) == [jpeg(1)]
        assert set(skipped) <= {"no_image"}


def test_archives_of_a_bucket_are_known_by_their_content(s3):
    s3.put_object(Bucket=BUCKET, Key="in/study", Body=gzip.compress(tar_bytes({"x.jpeg": jpeg(1)})))
    s3.put_object(Bucket=BUCKET, Key="in/a.tar.gz", Body=zip_bytes({"x.jpeg": jpeg(2)}))
    s3.put_object(Bucket=BUCKET, Key="in/@eaDir/x.jpeg", Body=jpeg(3))
    for archive in (f"s3://{BUCKET}/in", f"s3://{BUCKET}/in/study"):
        images, _ = listing(archive)
        assert set(contents(images).values()) == ({jpeg(1), jpeg(2)} if archive.endswith("in") else {jpeg(1)})
    s3.put_object(Bucket=BUCKET, Key="in/a.7z", Body=b"7z")
    with pytest.raises(InvalidInput, match="Unpack it to a folder"):
        listing(f"s3://{BUCKET}/in/a.7z")


@pytest.mark.slow
def test_more_keys_than_one_page(s3):
    # moto keeps them in memory: what takes the time is the asking.
    for number in range(1001):
        s3.put_object(Bucket=BUCKET, Key=f"in/{number:05d}.jpeg", Body=b"x")
    images, _ = listing(f"s3://{BUCKET}/in")
    assert len({image.uri for image in images}) == 1001


@pytest.mark.parametrize("kind", ["a.tar", "a.zip"])
def test_members_are_read_by_range(s3, endpoint, kind):
    files = {name: jpeg(number, 256) for number, name in enumerate(pictures(50))}
    members = sum(map(len, files.values()))
    body = tar_bytes(files) if kind == "a.tar" else zip_bytes(files)
    ballast = {"notes.txt": bytes(5 * members)} | files
    body = tar_bytes(ballast) if kind == "a.tar" else zip_bytes(ballast, 0)
    s3.put_object(Bucket=BUCKET, Key=kind, Body=body)
    with Proxy(endpoint) as proxy, using(proxy.endpoint):
        images, _ = listing(f"s3://{BUCKET}/{kind}")
        index = proxy.to_client
        assert list(contents(images).values()) == list(files.values())
        transferred = proxy.to_client
    assert index < 0.2 * members
    assert transferred - index <= 1.1 * members


def test_failures_that_pass_are_not_seen(s3, endpoint, monkeypatch):
    monkeypatch.setattr(LIMITS, "backoff_s", 0.05)
    files = pictures(20)
    for name, data in files.items():
        s3.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=data)
    with Proxy(endpoint, "GET .*jpeg", rate=0.3, most=2) as proxy, using(proxy.endpoint):
        images, _ = listing(f"s3://{BUCKET}/in")
        assert sorted(contents(images).values()) == sorted(files.values())
        assert proxy.injected


@pytest.mark.timeout(60)
def test_storage_that_stays_silent_blames_no_image(s3, monkeypatch):
    monkeypatch.setattr(LIMITS, "read_timeout_s", 0.5)
    monkeypatch.setattr(LIMITS, "give_up_after_s", 1.0)
    s3.put_object(Bucket=BUCKET, Key="in/x.jpeg", Body=jpeg(1))
    images, _ = listing(f"s3://{BUCKET}/in")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        using(f"http://127.0.0.1:{silent.getsockname()[1]}"),
        pytest.raises(StorageUnavailable, match="ReadTimeoutError"),
    ):
        contents(images)


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz"])
def test_no_image_of_a_tar_that_was_rewritten_has_the_bytes_of_another(s3, kind):
    files = {"anna.jpeg": jpeg(1), "bert.jpeg": jpeg(2)}
    pack = gzip.compress if kind.endswith("gz") else bytes
    s3.put_object(Bucket=BUCKET, Key=kind, Body=pack(tar_bytes(files)))
    images, _ = listing(f"s3://{BUCKET}/{kind}")
    assert list(contents(images).values()) == list(files.values())
    s3.put_object(Bucket=BUCKET, Key=kind, Body=pack(tar_bytes(dict(reversed(files.items())))))
    assert set(contents(images).values()) == {"unreadable"}


REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


def test_right_to_list_a_prefix_alone_is_enough(s3, endpoint):
    s3.put_object(Bucket=BUCKET, Key="in/x.jpeg", Body=jpeg(1))
    with Proxy(endpoint, "^HEAD", refusal=REFUSAL) as proxy, using(proxy.endpoint):
        images, _ = listing(f"s3://{BUCKET}/in")
        assert list(contents(images).values()) == [jpeg(1)]
        with pytest.raises(InvalidInput, match="cannot be opened"):
            listing(f"s3://{BUCKET}/empty")
    with (
        Proxy(endpoint, "^(HEAD|GET)", refusal=REFUSAL) as proxy,
        using(proxy.endpoint),
        pytest.raises(InvalidInput, match="cannot be opened"),
    ):
        listing(f"s3://{BUCKET}/in")


def test_archive_that_may_not_be_read_does_not_count_as_gone(s3, endpoint):
    s3.put_object(Bucket=BUCKET, Key="in/a.tar", Body=tar_bytes(pictures(2)))
    with (
        Proxy(endpoint, "GET .*tar", refusal=REFUSAL) as proxy,
        using(proxy.endpoint),
        pytest.raises(PneumoniaError) as raised,
    ):
        listing(f"s3://{BUCKET}/in")
    assert raised.value.remedy is Remedy.ALLOW_READING


@pytest.mark.parametrize(
    ("faults", "refusal", "exit_code"),
    [("m.csv", None, 1), ("m.csv", REFUSAL, 2), ("^HEAD .*jpeg", None, 1)],
)
def test_bucket_that_fails_under_a_manifest_blames_no_image(
    s3, endpoint, monkeypatch, faults, refusal, exit_code
):
    monkeypatch.setattr(LIMITS, "give_up_after_s", 0.3)
    s3.put_object(Bucket=BUCKET, Key="in/x.jpeg", Body=jpeg(1))
    s3.put_object(Bucket=BUCKET, Key="in/m.csv", Body=b"uri\nx.jpeg\ngone.jpeg\n")
    archive = f"s3://{BUCKET}/in/m.csv"
    images, _ = listing(archive)
    assert list(contents(images).values()) == [jpeg(1), "not_found"]
    skipped: Counter[str] = Counter()
    refusal = refusal or b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    with (
        Proxy(endpoint, faults, refusal=refusal) as proxy,
        using(proxy.endpoint),
        pytest.raises(PneumoniaError, match=r"cannot be|did not answer") as raised,
    ):
        list(list_archive(archive, skipped))
    assert raised.value.exit_code == exit_code


def test_object_that_went_is_not_found(s3):
    s3.put_object(Bucket=BUCKET, Key="in/x.jpeg", Body=jpeg(1))
    images, _ = listing(f"s3://{BUCKET}/in")
    s3.delete_object(Bucket=BUCKET, Key="in/x.jpeg")
    assert list(contents(images).values()) == ["not_found"]


def test_failures_while_listing_and_at_our_own_files_are_not_seen(s3, endpoint, monkeypatch):
    monkeypatch.setattr(LIMITS, "backoff_s", 0.05)
    place = open_location(f"s3://{BUCKET}/in")
    for number in range(6):
        write_bytes(place.child(f"{number:02d}.jpeg"), jpeg(number))
    with Proxy(endpoint, "^(GET|HEAD|PUT)", rate=0.5, most=2) as proxy, using(proxy.endpoint):
        for _ in range(3):
            names = [f"{number:02d}.jpeg" for number in range(6)]
            assert list_names(place) == names
            assert len(listing(place.uri)[0]) == 6
        for number, name in enumerate(names):
            file = place.child(name)
            assert exists(file)
            with open_file(file) as opened:
                assert (opened.read(), file_size(file)) == (jpeg(number), len(jpeg(number)))
            write_bytes(file, b"new")
            assert read_bytes(file) == b"new"
        assert proxy.injected > 10


@pytest.mark.parametrize(
    "text", ["s3://key:secret@bucket/x", "s3://b/k?endpoint_override=127.0.0.1:1", "s3:///x"]
)
def test_places_with_credentials_or_options_are_refused_and_not_repeated(text):
    with pytest.raises(InvalidInput) as raised:
        open_location(text)
    assert "secret" not in str(raised.value)


def test_bucket_that_does_not_exist_is_one_clear_line(s3):
    with pytest.raises(InvalidInput, match="cannot be listed"):
        listing("s3://no-such-bucket/in")
    with pytest.raises(InvalidInput, match="cannot create"):
        make_folder(open_location("s3://no-such-bucket/results"))


def test_files_of_a_place_are_written_whole_and_deleted(s3):
    place = open_location(f"s3://{BUCKET}/r")
    write_bytes(place.child("b.json"), json.dumps({}).encode())
    write_bytes(place.child("a").child("c.json"), b"c")
    assert list_names(place) == ["a", "b.json"]
    assert read_bytes(place.child("a").child("c.json")) == b"c"
    delete_file(place.child("b.json"))
    delete_file(place.child("b.json"))
    assert not exists(place.child("b.json"))
    delete_folder(place)
    assert not exists(place)


def test_of_two_writers_on_a_condition_one_wins(s3):
    uri = f"s3://{BUCKET}/lock"
    first = s3_objects.put(uri, b"1", only_if="")
    assert first
    assert s3_objects.put(uri, b"2", only_if="") is None
    second = s3_objects.put(uri, b"2", only_if=first)
    assert second
    assert s3_objects.put(uri, b"3", only_if=first) is None
