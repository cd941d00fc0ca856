"""Listing: every kind of archive holds the same images; whatever else lies there is counted, and nothing hangs."""

import os
import socket
from collections import Counter

import pytest
from archived import contents, jpeg, listing, pictures, tar_bytes, write_kinds, zip_bytes

from pneumonia_core.archives import check_disjoint, list_archive
from pneumonia_core.errors import InvalidInput
from pneumonia_core.members import ImageRef
from pneumonia_core.names import judge_name, judge_path
from pneumonia_core.scoring import read_and_decode
from pneumonia_core.seen import Seen


def test_folder_and_archives_hold_the_same_images(tmp_path):
    files = pictures(9)
    for kind, path in write_kinds(tmp_path, files).items():
        images, skipped = listing(path)
        separator = "/" if kind == "folder" else "!/"
        assert contents(images) == {f"file://{path}{separator}{name}": data for name, data in files.items()}
        assert not skipped


def test_archives_in_a_folder_are_opened(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.tar").write_bytes(tar_bytes({"x.jpeg": jpeg(1), "inner.zip": b""}))
    (tmp_path / "b.zip").write_bytes(zip_bytes({"y.jpeg": jpeg(2)}))
    (tmp_path / "broken.zip").write_bytes(b"no zip at all")
    (tmp_path / "z.jpeg").write_bytes(jpeg(3))
    images, skipped = listing(tmp_path)
    assert list(contents(images).values()) == [jpeg(2), jpeg(1), jpeg(3)]
    assert skipped == {"archive in an archive": 1, "archive that is cut short": 1}


def test_links_that_loop_pipes_and_sockets_are_counted_and_do_not_hang(tmp_path):
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    (tmp_path / "loop.jpeg").symlink_to(tmp_path / "loop.jpeg")
    (tmp_path / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo.jpeg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpeg"))
        images, skipped = listing(tmp_path)
    assert list(contents(images).values()) == [jpeg(1)]
    assert skipped == {"broken link": 1, "no regular file": 3}


def test_file_that_turned_into_a_pipe_is_unreadable(tmp_path):
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    images, _ = listing(tmp_path)
    (tmp_path / "x.jpeg").unlink()
    os.mkfifo(tmp_path / "x.jpeg")
    assert list(contents(images).values()) == ["unreadable"]


def test_hidden_and_macos_files_are_skipped_and_pictures_without_suffix_found(tmp_path):
    for name in (
        "._x.jpeg",
        ".hidden/x.jpeg",
        "__MACOSX/x.jpeg",
        "notes.txt",
        "notes",
        "IM0001",
        "1.2.840.1",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(1) if name in ("IM0001", "1.2.840.1") else b"text")
    images, skipped = listing(tmp_path)
    assert [image.uri.rpartition("/")[2] for image in images] == ["1.2.840.1", "IM0001"]
    assert skipped == {"hidden": 3, "no image": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_forbidden(tmp_path):
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    (tmp_path / "x.jpeg").chmod(0)
    images, _ = listing(tmp_path)
    assert list(contents(images).values()) == ["forbidden"]


def test_archive_that_went_after_listing_rejects_its_members(tmp_path):
    for kind, path in write_kinds(tmp_path, pictures(2)).items():
        if kind == "folder":
            continue
        images, _ = listing(path)
        path.unlink()
        assert list(contents(images).values()) == ["not_found"] * 2


def test_archives_that_overlap_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="lies in"):
        check_disjoint(["file:///a", "file:///a/b.tar"])
    check_disjoint(["file:///a", "file:///ab"])


def test_image_too_large_for_its_file_is_read_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr("pneumonia_core.stored.MAX_SOURCE_BYTES", 100)
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    decoded = read_and_decode(ImageRef(f"file://{tmp_path}/x.jpeg"), 64)
    assert (decoded.stage, decoded.reason) == ("read", "too_large")


def test_listing_is_lazy(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes(pictures(5)))
    images = list_archive(f"file://{tmp_path}/a.tar", Counter())
    assert next(images).uri.endswith("xr_0000.jpeg")


def test_names_are_judged():
    assert judge_name("x.JPEG") == "image"
    assert judge_name("1.2.840.55") == judge_name("IM1") == "look inside"
    assert judge_name("shard-000.tar.gz") == judge_name("a.tgz") == "archive"
    assert judge_path("../../x.png") == judge_path("./x.png") == "image"
    assert judge_path(".git/x.png") == judge_path("a/__MACOSX/x.png") == "hidden"


def test_seen_knows_what_came_before_past_its_buffer(monkeypatch):
    monkeypatch.setattr("pneumonia_core.seen._RECENT", 100)
    seen = Seen()
    assert all(seen.add(str(number)) for number in range(1050))
    assert not any(seen.add(str(number)) for number in range(1050))
