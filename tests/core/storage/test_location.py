"""Places: schemes, and files that are whole or absent on a disk."""

import pytest

from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage.errors import BucketError, cannot_write
from pneumonia_core.storage.files import (
    delete_folder,
    exists,
    list_names,
    read_bytes,
    write_bytes,
    write_stream,
)
from pneumonia_core.storage.location import open_location


def test_local_paths_and_file_uris_are_one_place(tmp_path):
    assert open_location(str(tmp_path)) == open_location(f"file://{tmp_path}")
    assert open_location(f"{tmp_path}/a%20b").path.endswith("a%20b")


@pytest.mark.parametrize("text", ["http://x/y", "ftp://x/y", "hdfs://x/y"])
def test_other_schemes_are_refused(text):
    with pytest.raises(InvalidInput, match="not supported"):
        open_location(text)


@pytest.mark.parametrize("text", ["", "file://"])
def test_empty_place_is_not_the_working_directory(text):
    with pytest.raises(InvalidInput, match="names no place"):
        open_location(text)


def test_path_that_is_no_utf8_is_refused():
    with pytest.raises(InvalidInput, match="Rename it, or name a folder above it"):
        open_location("/archive/R\udcf6ntgen")


@pytest.mark.parametrize("asked", ["X-Amz-Signature=SECRET", "X-Goog-Signature=SECRET", "sv=1&sig=SECRET"])
def test_presigned_places_are_refused_and_not_repeated(asked):
    with pytest.raises(InvalidInput, match="no credentials") as raised:
        open_location(f"s3://hospital/x.png?{asked}")
    assert "SECRET" not in str(raised.value)


def test_half_a_writing_leaves_nothing(tmp_path):
    location = open_location(str(tmp_path / "x"))

    def write_half() -> None:
        with write_stream(location) as stream:
            stream.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert list(tmp_path.iterdir()) == []
    write_bytes(location, b"whole")
    assert read_bytes(location) == b"whole"


def test_deleted_folder_may_be_gone_already(tmp_path):
    location = open_location(str(tmp_path / "a"))
    write_bytes(location.child("b").child("c"), b"c")
    assert list_names(location) == ["b"]
    for _ in range(2):
        delete_folder(location)
        assert not exists(location)


def test_a_bucket_that_fails_may_take_it_later_and_one_that_refuses_will_not():
    failing = cannot_write(
        "s3://b/k", "cannot write there", BucketError("the bucket did not take it (SlowDown)")
    )
    assert "when the storage answers" in str(failing)
    assert not isinstance(failing, InvalidInput)
    assert isinstance(
        cannot_write("s3://b/k", "cannot write there", OSError("the bucket did not take it")), InvalidInput
    )


@pytest.mark.parametrize("uri", ["file:///r/runs/7", "s3://bucket/runs/7"])
def test_parent_and_name_undo_child(uri):
    folder = open_location(uri)
    child = folder.child("run.json")
    assert (child.parent, child.name) == (folder, "run.json")
    assert (folder.name, folder.parent.parent) == ("7", open_location(uri.removesuffix("/runs/7")))
