"""Manifests: what they name is read only where they may, once, with the columns that are asked for."""

import os
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.images.archived import contents, jpeg, listing, pictures, tar_bytes, zip_bytes

from pneumonia_core.archives.manifests import ListingRules
from pneumonia_core.errors import InvalidInput


@pytest.fixture
def place(tmp_path):
    """A folder with a picture for a manifest, and one outside it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpeg").write_bytes(jpeg(1))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "y.jpeg").write_bytes(jpeg(2))
    return tmp_path


def manifest(folder, uris: list[str], name: str = "m.parquet", **columns: list):
    table = pa.table({"uri": uris, **columns})
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name)
    else:
        pa.csv.write_csv(table, folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["m.parquet", "m.csv", "M.CSV"])
def test_images_beneath_the_manifest_are_read_however_they_are_named(place, name):
    uris = ["x.jpeg", f"{place}/in/x2.jpeg", f"file://{place}/in/a b%#?.jpeg"]
    (place / "in" / "x2.jpeg").write_bytes(jpeg(3))
    (place / "in" / "a b%#?.jpeg").write_bytes(jpeg(4))
    images, _ = listing(manifest(place / "in", uris, name))
    assert contents(images) == {
        f"file://{place}/in/x.jpeg": jpeg(1),
        f"file://{place}/in/x2.jpeg": jpeg(3),
        f"file://{place}/in/a b%#?.jpeg": jpeg(4),
    }


def test_what_it_may_not_name_is_rejected_and_nothing_is_fetched(place):
    (place / "in" / "link.jpeg").symlink_to(place / "out" / "y.jpeg")
    (place / "in" / "folder").symlink_to(place / "out")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.setblocking(False)
        attacks = {
            f"http://127.0.0.1:{port}/x": f"http://127.0.0.1:{port}/x",
            "s3://key:secret@bucket/x": "s3://***@bucket/x",
            f"s3://b/k?endpoint_override=127.0.0.1:{port}": "s3://b/k?***",
            f"s3://127.0.0.1:{port}/k": f"s3://127.0.0.1:{port}/k",
            f"ftp:x@127.0.0.1:{port}": f"ftp:***@127.0.0.1:{port}",
            "file:///etc/passwd": "file:///etc/passwd",
            "file://host/etc/passwd": "file://host/etc/passwd",
            "/etc/passwd": "file:///etc/passwd",
            "../../../../../../etc/passwd": None,
            f"{place}/in/../out/y.jpeg": f"file://{place}/out/y.jpeg",
            f"{place}/inside.jpeg": f"file://{place}/inside.jpeg",
            "link.jpeg": f"file://{place}/in/link.jpeg",
            "folder/y.jpeg": f"file://{place}/in/folder/y.jpeg",
            "s3://other/x.jpeg": "s3://other/x.jpeg",
            "x\0.jpeg": f"file://{place}/in/x\\0.jpeg",
        }
        images, _ = listing(manifest(place / "in", ["x.jpeg", *attacks]))
        read = contents(images)
        # Whoever called would wait in the queue of the listener.
        with pytest.raises(BlockingIOError):
            listener.accept()
    good = read.pop(f"file://{place}/in/x.jpeg")
    assert good == jpeg(1)
    assert read.pop(f"http://127.0.0.1:{port}/x") == "unsupported"
    assert set(read.values()) == {"forbidden"}
    assert {f"http://127.0.0.1:{port}/x", *read} == {shown for shown in attacks.values() if shown}
    assert not any("secret" in image.uri for image in images)


SECRETS = {
    "s3://AKIAEXAMPLE:wJalr/SECRET@bucket/x.png": "s3://***@bucket/x.png",
    "https://b.example/x.png?X-Amz-Algorithm=A&X-Amz-Security-Token=SECRET": "https://b.example/x.png?***",
    "https://b.example/x.png?sv=1&sig=SECRET": "https://b.example/x.png?***",
    "s3://other/x.png?SECRET": "s3://other/x.png?***",
    "file://host/x.png?SECRET": "file://host/x.png?***",
    "user:SE/CRET@host": "user:***@host",
}


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_of_what_is_refused_are_shown_nowhere(place, text):
    with pytest.raises(InvalidInput) as raised:
        listing(manifest(place / "in", [text]))
    assert SECRETS[text] in str(raised.value)
    assert "SECRET" not in str(raised.value)
    images, _ = listing(manifest(place / "in", ["x.jpeg", text]))
    assert images[1].uri == SECRETS[text]
    assert "SECRET" not in repr(images)


def test_presigned_url_beneath_an_allowed_prefix_is_refused(place, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    rules = ListingRules(allow_prefixes=("s3://hospital",))
    uris = ["x.jpeg", "s3://hospital/x.png?X-Amz-Signature=SECRET"]
    images, _ = listing(manifest(place / "in", uris), rules)
    assert (images[1].uri, images[1].version) == ("s3://hospital/x.png?***", "forbidden")


@pytest.mark.parametrize("name", ["m.parquet", "m.csv"])
def test_rows_without_a_uri_are_counted(place, name):
    path = manifest(place / "in", ["x.jpeg", "" if name == "m.csv" else None, ""], name, site=["1", "2", "3"])
    images, skipped = listing(path)
    assert contents(images) == {f"file://{place}/in/x.jpeg": jpeg(1)}
    assert skipped == {"row_without_uri": 2}


def test_colon_in_a_name_is_no_scheme(place):
    (place / "in" / "IMG-10:00.jpeg").write_bytes(jpeg(5))
    images, _ = listing(manifest(place / "in", ["IMG-10:00.jpeg"]))
    assert contents(images) == {f"file://{place}/in/IMG-10:00.jpeg": jpeg(5)}


def test_manifest_of_nothing_but_forbidden_images_is_refused_and_names_some(place):
    with pytest.raises(InvalidInput, match="passwd"):
        listing(manifest(place / "in", ["/etc/passwd", "http://127.0.0.1:1/x"]))


def test_allowed_prefix_opens_one_more_place(place):
    rules = ListingRules(allow_prefixes=(str(place / "out"),))
    images, _ = listing(manifest(place / "in", [f"{place}/out/y.jpeg", f"{place}/outer.jpeg"]), rules)
    assert list(contents(images).values()) == [jpeg(2), "forbidden"]


def test_path_that_became_a_link_after_listing_is_not_followed(place):
    images, _ = listing(manifest(place / "in", ["x.jpeg"]))
    (place / "in" / "x.jpeg").unlink()
    (place / "in" / "x.jpeg").symlink_to(place / "out" / "y.jpeg")
    assert list(contents(images).values()) == ["forbidden"]


def test_manifest_folder_that_is_itself_a_link_works(place):
    (place / "alias").symlink_to(place / "in")
    manifest(place / "in", ["x.jpeg"])
    images, _ = listing(place / "alias" / "m.parquet")
    assert contents(images) == {f"file://{place}/alias/x.jpeg": jpeg(1)}


def test_image_named_twice_is_listed_once_and_absent_ones_get_rows(place):
    uris = ["x.jpeg", f"{place}/in/x.jpeg", "./x.jpeg", "absent.jpeg", "in.fifo"]
    os.mkfifo(place / "in" / "in.fifo")
    images, skipped = listing(manifest(place / "in", uris))
    assert list(contents(images).values()) == [jpeg(1), "not_found", "unreadable"]
    assert skipped == {"repeated_in_manifest": 2}


@pytest.mark.parametrize("name", ["m.parquet", "m.csv"])
def test_carried_columns_are_text(place, name):
    path = manifest(place / "in", ["x.jpeg"], name, study_id=["007"], site=['A "b"'], other=[1.5])
    images, _ = listing(path, ListingRules(carry=("study_id", "site")))
    assert images[0].carried == '{"study_id": "007", "site": "A \\"b\\""}'


def test_missing_columns_are_named(place):
    path = manifest(place / "in", ["x.jpeg"], study_id=["007"])
    with pytest.raises(InvalidInput, match="site"):
        listing(path, ListingRules(carry=("study_id", "site")))
    pq.write_table(pa.table({"path": ["x"]}), place / "in" / "n.parquet")
    with pytest.raises(InvalidInput, match="column `uri`"):
        listing(place / "in" / "n.parquet")
    (place / "in" / "n.csv").write_bytes(b"\x00\xff\n\n,,,")
    with pytest.raises(InvalidInput, match="column `uri`"):
        listing(place / "in" / "n.csv")


def test_members_that_a_manifest_names_are_listed_as_their_archive_lists_them(tmp_path):
    files = pictures(3)
    for name, data in (("a.tar", tar_bytes(files)), ("a.zip", zip_bytes(files))):
        (tmp_path / name).write_bytes(data)
    expected = {image.uri: image for name in ("a.tar", "a.zip") for image in listing(tmp_path / name)[0]}
    absent = [f"file://{tmp_path}/{name}!/x.jpeg" for name in ("a.tar", "absent.zip")]
    foreign = f"file://{tmp_path.parent}/b.zip!/x.jpeg"
    uris = [*expected, *absent, foreign]
    pq.write_table(pa.table({"uri": uris}), tmp_path / "m.parquet")
    images, _ = listing(tmp_path / "m.parquet")
    assert [image.uri for image in images] == uris
    assert images[: len(expected)] == list(expected.values())
    read = contents(images)
    assert [read[uri] for uri in [*absent, foreign]] == ["not_found", "not_found", "forbidden"]


def test_member_of_an_archive_that_a_link_leads_to_is_not_read(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.zip").write_bytes(zip_bytes(pictures(1)))
    (tmp_path / "inside" / "a.zip").symlink_to(tmp_path / "outside.zip")
    uri = f"file://{tmp_path}/inside/a.zip!/{next(iter(pictures(1)))}"
    (tmp_path / "inside" / "ok.jpeg").write_bytes(jpeg(1))
    pq.write_table(pa.table({"uri": [uri, "ok.jpeg"]}), tmp_path / "inside" / "m.parquet")
    images, _ = listing(tmp_path / "inside" / "m.parquet")
    assert contents(images)[uri] == "forbidden"
