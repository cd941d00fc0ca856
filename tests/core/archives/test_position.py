"""A listing that begins where another one stood has every image once, whatever has changed since then."""

import os
import socket

import pyarrow.parquet as pq
import pytest
from support.buckets import BUCKET, s3_server, using
from support.images.archived import jpeg, pictures, tar_bytes, write_kinds, zip_bytes

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.archives.lister import Lister
from pneumonia_core.archives.position import ListingPosition
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client

# Names whose order is not that of their paths, containers between files, and a folder like a file.
FILES = {
    "a/10.jpeg": jpeg(1),
    "a/2.jpeg": jpeg(2),
    "a.jpeg": jpeg(3),
    "a.tar": tar_bytes(pictures(3)),
    "b/z.zip": zip_bytes(pictures(3)),
    "b/z": zip_bytes(pictures(2)),
    "c!/y.jpeg": jpeg(8),
    "c": jpeg(9),
    "b/deep/x.jpeg": jpeg(4),
    "b.jpeg": jpeg(5),
    "ü.jpeg": jpeg(6),
}


def write(folder, files=FILES) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def listed(archives, after=None) -> tuple[list[tuple[str, str]], int]:
    """Archive and URI of each image, and how many of them come up to the end of the last archive."""
    with Lister(archives, after=after) as lister:
        assert lister.wait(60)
        segments = [pq.read_table(path) for path in lister.take()]
        assert lister.segments_until_end is not None
        places = [(row["archive"], row["image_uri"]) for table in segments for row in table.to_pylist()]
        return places, sum(map(len, segments[: lister.segments_until_end]))


def check_every_place(archives) -> None:
    whole, _ = listed(archives)
    assert len({uri for _, uri in whole}) == len(whole) > 2
    for number, place in enumerate(whole, 1):
        found, until_end = listed(archives, ListingPosition(*place))
        assert found == whole[number:] + whole[:number], place
        assert until_end == len(whole) - number


def test_listing_of_several_archives_goes_on_at_every_image(tmp_path):
    write(tmp_path / "one")
    os.rename(tmp_path / "one" / "ü.jpeg", os.fsencode(tmp_path / "one") + b"/\xfc.jpeg")  # noqa: PTH104
    kinds = write_kinds(tmp_path, pictures(4))
    (tmp_path / "two.csv").write_text("\n".join(["uri", *(f"folder/{name}" for name in pictures(4))]) + "\n")
    archives = [
        tmp_path / "one",
        *(kinds[name] for name in ("a.tar", "a.tar.gz", "a.zip")),
        tmp_path / "two.csv",
    ]
    check_every_place([open_archive(str(archive)) for archive in archives])


def test_listing_of_a_bucket_goes_on_at_every_image():
    with s3_server() as endpoint, using(endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        for name, data in FILES.items():
            write_bytes(open_location(f"s3://{BUCKET}/in/{name}"), data)
        check_every_place([f"s3://{BUCKET}/in"])
        (whole, _) = listed([f"s3://{BUCKET}/in"])
        delete_file(open_location(f"s3://{BUCKET}/in/a.jpeg"))
        gone = next(place for place in whole if place[1].endswith("/a.jpeg"))
        found, _ = listed([f"s3://{BUCKET}/in"], ListingPosition(*gone))
        number = whole.index(gone)
        assert found == whole[number + 1 :] + whole[:number]


@pytest.mark.parametrize("name", ["a.tar", "b/z.zip", "a/2.jpeg", "a.jpeg"])
@pytest.mark.parametrize("change", ["rewritten", "deleted"])
def test_every_image_is_listed_once_where_the_place_has_changed(tmp_path, name, change):
    write(tmp_path)
    archive = open_archive(str(tmp_path))
    place = next(place for place in listed([archive])[0] if name in place[1])
    if change == "deleted":
        (tmp_path / name).unlink()
    else:
        packed = tar_bytes if name.endswith("tar") else zip_bytes
        other = {"more.jpeg": jpeg(7), **dict(list(pictures(3).items())[1:])}
        write(tmp_path, {name: jpeg(8) if name.endswith("jpeg") else packed(other)})
    found, _ = listed([archive], ListingPosition(*place))
    assert sorted(found) == sorted(listed([archive])[0])


@pytest.mark.parametrize("names", [["c", "a"], ["x", "c", "b", "a", "x"], ["b", "a", "b", "c"]])
def test_every_image_of_a_manifest_that_was_written_again_is_listed_once(tmp_path, names):
    write(tmp_path, {f"{name}.jpeg": jpeg(1) for name in "abcx"})
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri\na.jpeg\nb.jpeg\nc.jpeg\n")
    archive = open_archive(str(manifest))
    place = listed([archive])[0][1]
    manifest.write_text("\n".join(["uri", *(f"{name}.jpeg" for name in names)]) + "\n")
    found, _ = listed([archive], ListingPosition(*place))
    assert sorted(found) == sorted(listed([archive])[0])


def test_place_in_an_archive_that_is_no_longer_asked_for_is_forgotten(tmp_path):
    write(tmp_path)
    archive = open_archive(str(tmp_path))
    assert listed([archive], ListingPosition("file:///away", "file:///away/x")) == listed([archive])


@pytest.mark.timeout(60)
def test_what_is_listed_is_handed_out_while_the_listing_goes_on(tmp_path):
    """A slow listing of fewer images than a segment holds would else give nothing before its end."""
    write(tmp_path)
    whole, _ = listed([open_archive(str(tmp_path))])
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        using(f"http://127.0.0.1:{silent.getsockname()[1]}"),
        Lister([open_archive(str(tmp_path)), "s3://hospital/in"], leave_after_s=0.1) as lister,
    ):
        found: list[str] = []
        while len(found) < len(whole):
            found += [uri for path in lister.take() for uri in pq.read_table(path)["image_uri"].to_pylist()]
        assert found == [uri for _, uri in whole]
        assert not lister.done
        assert lister.segments_until_end is None
