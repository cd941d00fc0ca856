"""Listing: every kind of archive holds the same images; whatever else lies there is counted, and nothing
hangs."""

import gzip
import io
import os
import socket
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from support.images.archived import contents, jpeg, listing, pictures, tar_bytes, write_kinds, zip_bytes

from pneumonia_core.archives.archive import check_disjoint, list_archive
from pneumonia_core.archives.classify import NameClass, classify_path
from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.scoring.decoding import read_and_decode
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES
from pneumonia_core.system.hash_set import HashSet


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
    assert skipped == {"nested_archive": 1, "truncated_archive": 1}


def test_links_that_loop_pipes_and_sockets_are_counted_and_do_not_hang(tmp_path):
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    (tmp_path / "loop.jpeg").symlink_to(tmp_path / "loop.jpeg")
    (tmp_path / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo.jpeg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpeg"))
        images, skipped = listing(tmp_path)
    assert list(contents(images).values()) == [jpeg(1)]
    assert skipped == {"broken_link": 1, "no_regular_file": 3}


def test_link_to_a_folder_elsewhere_is_counted_and_one_within_the_archive_is_not(tmp_path):
    for folder in ("elsewhere", "in/ward"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.jpeg").write_bytes(jpeg(1))
    (tmp_path / "in" / "2026").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "latest").symlink_to("ward")
    images, skipped = listing(tmp_path / "in")
    assert [image.uri for image in images] == [f"file://{tmp_path}/in/ward/x.jpeg"]
    assert skipped == {"link_to_folder_elsewhere": 1, "no_regular_file": 1}


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
    assert skipped == {"hidden": 3, "no_image": 2}


@pytest.mark.parametrize("name", ["x.jpeg", "IM0001", "scan.IMA"])
def test_unreadable_file_is_forbidden(not_root, name):
    (not_root / name).write_bytes(jpeg(1))
    (not_root / name).chmod(0)
    images, _ = listing(not_root)
    assert list(contents(images).values()) == ["forbidden"]


@pytest.mark.parametrize("name", ["ward", "a.tar", "b.zip", "c.tar.gz"])
def test_images_out_of_reach_do_not_count_as_gone(not_root, name):
    (not_root / "x.jpeg").write_bytes(jpeg(1))
    (not_root / "ward").mkdir()
    for archive in ("a.tar", "b.zip", "c.tar.gz"):
        (not_root / archive).write_bytes(tar_bytes(pictures(2)))
    (not_root / name).chmod(0)
    with pytest.raises(PneumoniaError, match=f"{name} c.* be listed.*move it out of the archive") as raised:
        listing(not_root)
    assert raised.value.exit_code == 1
    with pytest.raises(InvalidInput, match=f"{name}: the archive cannot be opened"):
        listing(not_root / name)


def test_folder_that_may_be_read_but_not_entered_ends_the_listing(not_root):
    (not_root / "ward").mkdir()
    (not_root / "ward" / "x.jpeg").write_bytes(jpeg(1))
    (not_root / "ward").chmod(0o400)
    with pytest.raises(PneumoniaError, match=r"ward/x\.jpeg cannot be listed"):
        listing(not_root)


def test_links_to_where_we_may_not_look_and_lost_and_found_are_counted(not_root):
    for name in ("lost+found", ".private"):
        (not_root / name).mkdir()
    (not_root / "x.jpeg").symlink_to(not_root / ".private" / "x.jpeg")
    for name in ("lost+found", ".private"):
        (not_root / name).chmod(0)
    assert listing(not_root) == ([], {"hidden": 1, "unopened_folder": 1, "broken_link": 1})


def test_archive_that_is_no_file_or_went_before_it_was_listed_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(InvalidInput, match="no regular file"):
        listing(tmp_path / "a.tar")
    for name in ("a.tar", "gone.tar", "gone"):
        with pytest.raises(PneumoniaError, match="the archive cannot be opened"):
            list(list_archive(f"file://{tmp_path}/{name}", Counter()))


def test_names_that_are_no_utf8_are_shown_escaped_and_read(tmp_path):
    folder = os.fsencode(tmp_path) + b"/R\xf6ntgen"
    Path(os.fsdecode(folder)).mkdir()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m.jpeg", jpeg(2))
    for name, data in {
        b"/\xe4.jpeg": jpeg(1),
        b"/z.zip": buffer.getvalue(),
        b"/t.tar.gz": gzip.compress(tar_bytes({"n.jpeg": jpeg(3)})),
    }.items():
        Path(os.fsdecode(folder + name)).write_bytes(data)
    (tmp_path / "R\\xf6.jpeg").write_bytes(jpeg(4))
    images, skipped = listing(tmp_path)
    shown = f"file://{tmp_path}/R\\xf6"
    assert contents(images) == {
        f"{shown}.jpeg": jpeg(4), f"{shown}ntgen/t.tar.gz!/n.jpeg": jpeg(3),
        f"{shown}ntgen/z.zip!/m.jpeg": jpeg(2), f"{shown}ntgen/\\xe4.jpeg": jpeg(1),
    }  # fmt: skip
    assert not skipped


@pytest.fixture
def deep_folder(tmp_path, monkeypatch):
    """A folder with a picture in the innermost of 1,100 folders. Pytest itself could not delete it."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    Path("x.jpeg").write_bytes(jpeg(1))
    yield tmp_path
    Path("x.jpeg").unlink()
    for _ in range(1100):
        os.chdir("..")
        Path("d").rmdir()


def test_folders_may_lie_deeper_than_python_calls(deep_folder):
    images, _ = listing(deep_folder)
    assert list(contents(images).values()) == [jpeg(1)]


def test_archive_that_went_after_listing_rejects_its_members(tmp_path):
    for kind, path in write_kinds(tmp_path, pictures(2)).items():
        if kind == "folder":
            continue
        images, _ = listing(path)
        path.unlink()
        assert list(contents(images).values()) == ["not_found"] * 2


def test_archives_that_overlap_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="is inside"):
        check_disjoint(["file:///a", "file:///a/b.tar"])
    check_disjoint(["file:///a", "file:///ab"])


def test_image_too_large_for_its_file_is_read_no_further(tmp_path):
    (tmp_path / "x.jpeg").write_bytes(jpeg(1))
    # A hole on the disk: the file takes no room.
    os.truncate(tmp_path / "x.jpeg", MAX_SOURCE_BYTES + 1)
    decoded = read_and_decode(FetchedImage(ImageRef(f"file://{tmp_path}/x.jpeg")), 64)
    assert decoded.rejection is not None
    assert (decoded.rejection.stage, decoded.rejection.reason) == ("read", "too_large")


def test_listing_is_lazy(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_bytes(pictures(5)))
    images = list_archive(f"file://{tmp_path}/a.tar", Counter())
    assert next(images).uri.endswith("xr_0000.jpeg")


STRANGE = [
    "1.2.840.55_1",
    "Thorax p.a. 2026-01-31",
    "scan.IMA",
    "IM0001.dicom",
    "x.jfif",
    "IMG.0001a",
    "x.JPG ",
]


@pytest.mark.parametrize("kind", ["folder", "a.tar", "a.zip"])
def test_pictures_are_known_by_content_whatever_their_suffix(tmp_path, kind):
    files = {name: jpeg(number) for number, name in enumerate(STRANGE)}
    path = write_kinds(tmp_path, files | {"notes.v2": b"text", "x.CSV": jpeg(1)})[kind]
    images, skipped = listing(path)
    assert sorted(contents(images).values()) == sorted(files.values())
    assert skipped == {"no_image": 2}


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        (NameClass.IMAGE, ["x.JPEG", "../../x.png", "./x.png"]),
        (NameClass.UNKNOWN, ["1.2.840.55", "IM1", "a.7z", "a.RAR", "a.gz", "a.tar.001"]),
        (NameClass.ARCHIVE, ["shard-000.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2", "a.tzst"]),
        (SkipReason.HIDDEN, [".git/x.png", "a/__MACOSX/x.png", ".x.png"]),
        (SkipReason.NO_IMAGE, ["a.txt", "a.XLSX", "a.ipynb", "a.csv.gz", "a.mp4", "a.DLL", "disc/DICOMDIR"]),
        (SkipReason.OTHER_COMPRESSION, ["a.dcm.gz", "a.JPG.bz2", "a.zip.gz"]),
    ],
)
def test_files_are_classified_by_their_names(kind, paths):
    assert {path: classify_path(path) for path in paths} == dict.fromkeys(paths, kind)


def test_hash_set_knows_strings_past_its_recent_ones():
    seen = HashSet(recent=100)
    assert all(seen.add(str(number)) for number in range(1050))
    assert not any(seen.add(str(number)) for number in range(1050))
