"""Images that cannot be read become rows while their storage gives others; otherwise their chunk fails."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from support.buckets import BUCKET, IN_COLD_STORAGE, Proxy, s3_server, using
from support.images.archived import jpeg, listing, write_kinds

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.archives.entries import SOURCE_FIELDS, image_refs, source_values
from pneumonia_core.archives.samples import storage_of
from pneumonia_core.errors import Remedy
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.scoring.witness import witnessed
from pneumonia_core.storage.errors import StorageUnavailable
from pneumonia_core.storage.files import delete_file, delete_folder, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client

FILES = {f"ward {number % 2}/{number}.jpeg": jpeg(number) for number in range(6)}
Reason = str | None


def chunk_of(archive: object, only: Callable[[str], bool] = lambda uri: True) -> pa.Table:
    """The inventory rows of an archive as it is now, those whose URI is wanted."""
    images = [image for image in listing(archive)[0] if only(image.uri)]
    columns = zip(*(source_values(image.source) for image in images), strict=True)
    return pa.table(
        {
            "image_uri": [image.uri for image in images],
            "image_version": [image.version for image in images],
            "size_bytes": [image.size_bytes for image in images],
            "archive": [open_archive(str(archive))] * len(images),
            **{
                field.name: pa.array(column, field.type)
                for field, column in zip(SOURCE_FIELDS, columns, strict=True)
            },
        }
    )


def reasons(rows: pa.Table) -> list[Reason]:
    """Why the images of a chunk, which are read now, are rejected."""
    images = decode_all(image_refs(rows), 32, 2, isolated=False)
    return [image.rejection and image.rejection.reason for image in witnessed(rows, images)]


@pytest.fixture
def kinds(tmp_path):
    """The same images as a folder, a tar, a tar.gz, a zip, and named by a manifest."""
    kinds = write_kinds(tmp_path, FILES)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("uri\n" + "".join(f"folder/{name}\n" for name in FILES))
    return {**kinds, "manifest": manifest}


KINDS = ["folder", "a.tar", "a.tar.gz", "a.zip", "manifest"]


@pytest.mark.parametrize("kind", KINDS)
def test_archive_that_is_moved_away_after_listing_fails_its_chunk(kinds, kind, tmp_path):
    rows = chunk_of(kinds[kind])
    moved = kinds["folder"] if kind == "manifest" else kinds[kind]
    moved.rename(tmp_path / "elsewhere")
    for path in tmp_path.glob("a.*"):
        path.unlink()
    with pytest.raises(StorageUnavailable, match=r"images cannot be read \(6 not_found\)") as raised:
        reasons(rows)
    assert kinds[kind].name in raised.value.text
    assert raised.value.remedy is Remedy.RESTORE_ARCHIVE


def test_empty_mount_point_is_no_archive(kinds):
    rows = chunk_of(kinds["folder"])
    shutil.rmtree(kinds["folder"])
    (kinds["folder"] / "lost+found").mkdir(parents=True)
    with pytest.raises(StorageUnavailable, match="6 not_found"):
        reasons(rows)


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_images_that_are_gone_while_others_are_there_are_rows(kinds, kind):
    rows = chunk_of(kinds[kind])
    for name in list(FILES)[1:3]:
        (kinds["folder"] / name).unlink()
    assert sorted(map(str, reasons(rows))) == ["None"] * 4 + ["not_found"] * 2


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_images_that_are_all_gone_are_rows_where_others_of_the_archive_are_there(kinds, kind):
    rows = chunk_of(kinds[kind], lambda uri: "ward 1" in uri)
    shutil.rmtree(kinds["folder"] / "ward 1")
    assert reasons(rows) == ["not_found"] * 3


def test_images_that_were_gone_and_are_back_are_no_rows(kinds):
    rows = chunk_of(kinds["folder"])
    images = [Decoded.rejected("not_found", "listed, but gone when it was read") for _ in FILES]
    with pytest.raises(StorageUnavailable, match="and is back") as raised:
        list(witnessed(rows, images))
    assert raised.value.remedy is Remedy.RUN_AGAIN


def test_image_that_a_manifest_names_and_that_never_was_is_a_row(tmp_path):
    (tmp_path / "m.csv").write_text("uri\ngone/x.jpeg\n../y.jpeg\n")
    # open_archive refuses a manifest of which no image may be read.
    assert reasons(chunk_of(tmp_path / "m.csv")) == ["not_found", "forbidden"]


def test_rights_that_went_fail_the_chunk_and_one_file_without_them_is_a_row(not_root):
    write_kinds(not_root, FILES)
    rows = chunk_of(not_root / "folder")
    paths = [not_root / "folder" / name for name in FILES]
    paths[0].chmod(0)
    assert sorted(map(str, reasons(rows))) == ["None"] * 5 + ["forbidden"]
    for path in paths:
        path.chmod(0)
    with pytest.raises(StorageUnavailable, match="6 forbidden"):
        reasons(rows)


@pytest.mark.parametrize(
    ("archive", "file", "storage"),
    [
        ("file:///mnt/a", "file:///mnt/a/x.jpeg", "file:///mnt/a"),
        ("file:///data/m.csv", "file:///mnt/b/2026/x.jpeg", "file:///mnt/b"),
        ("file:///data/m.csv", "file:///x.jpeg", "file://"),
        ("s3://one/m.parquet", "s3://two/a/b/x.jpeg", "s3://two"),
    ],
)
def test_images_of_a_manifest_need_a_witness_in_their_own_storage(archive, file, storage):
    assert storage_of(archive, file) == storage


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        yield proxy


@pytest.fixture
def bucket(server):
    location = open_location(f"s3://{BUCKET}/in")
    for name, data in FILES.items():
        write_bytes(location.child(name), data)
    write_bytes(
        open_location(f"s3://{BUCKET}/m.csv"),
        "".join(["uri\n", *(f"in/{name}\n" for name in FILES)]).encode(),
    )
    yield server
    server.fail(None)
    delete_folder(location)


@pytest.mark.parametrize("archive", ["in", "m.csv"])
def test_objects_that_are_gone_are_rows_until_all_are(bucket, archive):
    rows = chunk_of(f"s3://{BUCKET}/{archive}")
    objects = [open_location(f"s3://{BUCKET}/in/{name}") for name in FILES]
    for one in objects[:2]:
        delete_file(one)
    assert sorted(map(str, reasons(rows))) == ["None"] * 4 + ["not_found"] * 2
    for one in objects:
        delete_file(one)
    with pytest.raises(StorageUnavailable, match="6 not_found"):
        reasons(rows)


def test_rights_to_a_bucket_that_went_fail_the_chunk(bucket):
    rows = chunk_of(f"s3://{BUCKET}/in")
    bucket.fail(r"^GET .*(jpeg|list-type)", refusal=b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(StorageUnavailable, match="6 forbidden"):
        reasons(rows)


def test_images_in_cold_storage_are_rows_also_where_all_are(bucket):
    rows = chunk_of(f"s3://{BUCKET}/in")
    bucket.fail(r"^GET .*jpeg", refusal=IN_COLD_STORAGE)
    assert reasons(rows) == ["forbidden"] * 6


def test_chunk_without_such_rejections_asks_for_no_witness(tmp_path):
    (tmp_path / "a").mkdir()
    for name, data in {"x.jpeg": jpeg(1), "empty.jpeg": b"", "cut.jpeg": jpeg(2)[:200]}.items():
        (tmp_path / "a" / name).write_bytes(data)
    rows = chunk_of(tmp_path / "a")
    images = decode_all(image_refs(rows), 32, 2, isolated=False)
    Path(tmp_path / "a").rename(tmp_path / "b")
    assert len(list(witnessed(rows, images))) == 3
