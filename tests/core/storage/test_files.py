"""The program's own files: on a disk and in S3 they behave alike."""

import time

import boto3
import pytest
from support.buckets import BUCKET, s3_server, using

from pneumonia_core.storage.files import (
    delete_file,
    delete_folder,
    exists,
    file_size,
    is_folder,
    list_names,
    make_folder,
    open_file,
    read_bytes,
    write_bytes,
    written_at_s,
)
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.ranges import open_stream, read_range, stat_file


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as endpoint, using(endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint


@pytest.fixture(params=["disk", "bucket"])
def folder(request, endpoint, tmp_path):
    folder = open_location(str(tmp_path / "f") if request.param == "disk" else f"s3://{BUCKET}/f")
    make_folder(folder)
    yield folder
    delete_folder(folder)


def test_storage_tells_when_a_file_was_written(folder):
    write_bytes(folder.child("x.bin"), b"1")
    # A bucket tells whole seconds.
    assert abs(written_at_s(folder.child("x.bin")) - time.time()) < 60
    with pytest.raises(FileNotFoundError if folder.is_local else OSError):
        written_at_s(folder.child("y.bin"))


def test_file_is_written_read_listed_and_deleted(folder):
    file = folder.child("a b%20").child("x.bin")
    assert not exists(file)
    write_bytes(file, b"0123456789")
    assert exists(file)
    assert exists(file.parent)
    assert (is_folder(file), is_folder(file.parent)) == (False, True)
    assert read_bytes(file) == b"0123456789"
    assert file_size(file) == 10
    assert list_names(folder) == ["a b%20"]
    assert list_names(folder.child("away")) == []
    for _ in range(2):
        delete_file(file)
        assert not exists(file)


def test_file_that_is_away_is_not_found(folder):
    away = folder.child("away")
    for read in (read_bytes, file_size, open_file):
        with pytest.raises(FileNotFoundError):
            read(away)


def test_file_is_read_anywhere(folder):
    location = folder.child("x.bin")
    write_bytes(location, b"0123456789")
    with open_file(location) as file:
        file.seek(-3, 2)
        assert file.read(9) == b"789"
        file.seek(2)
        assert file.read(3) == b"234"
    stored = stat_file(location.uri)
    assert read_range(location.uri, 8, 9, stored.version) == b"89"
    with open_stream(stored) as stream:
        assert (stream.read(4), stream.read()) == (b"0123", b"456789")
