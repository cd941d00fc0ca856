"""What was listed is what is read: a file that was replaced since then has another version."""

import os

import pytest
from support.buckets import BUCKET, s3_server, using
from support.images.archived import jpeg, listing, through_the_inventory

from pneumonia_core.archives.archive import read_image_bytes
from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client

REWRITTEN = "rewritten since it was listed"


@pytest.mark.parametrize("archive", ["ward", "ward/x.jpeg", "ward.csv"])
def test_file_that_was_replaced_since_its_listing_is_not_read_in_its_place(tmp_path, archive):
    (tmp_path / "ward").mkdir()
    file = tmp_path / "ward" / "x.jpeg"
    file.write_bytes(jpeg(1))
    (tmp_path / "ward.csv").write_text("uri\nward/x.jpeg\n")
    listed_at = file.stat().st_mtime_ns
    (ref,) = through_the_inventory(listing(tmp_path / archive)[0])
    file.write_bytes(jpeg(2)[: len(jpeg(1))].ljust(len(jpeg(1)), b"\0"))
    os.utime(file, ns=(listed_at + 1, listed_at + 1))
    with pytest.raises(RejectedImage, match=REWRITTEN) as raised:
        read_image_bytes(ref)
    assert raised.value.reason == "unreadable"
    file.write_bytes(jpeg(1))
    os.utime(file, ns=(listed_at, listed_at))
    assert read_image_bytes(ref) == jpeg(1)


def test_file_that_is_written_to_while_it_is_read_is_no_mixture(tmp_path, monkeypatch):
    file = tmp_path / "x.jpeg"
    file.write_bytes(jpeg(1))
    (ref,) = through_the_inventory(listing(file)[0])
    read = os.pread

    def read_and_overwrite(descriptor: int, count: int, offset: int) -> bytes:
        first_half = read(descriptor, count // 2, offset)
        file.write_bytes(first_half + bytes(count - len(first_half)))
        return first_half

    monkeypatch.setattr(os, "pread", read_and_overwrite)
    with pytest.raises(RejectedImage, match=REWRITTEN):
        read_image_bytes(ref)


@pytest.mark.parametrize("named_by", ["prefix", "manifest"])
def test_object_that_was_replaced_since_its_listing_is_not_read_in_its_place(named_by):
    with s3_server() as endpoint, using(endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        there, later, gone = (open_location(f"s3://{BUCKET}/in/{name}.jpeg") for name in ("a", "b", "c"))
        manifest = open_location(f"s3://{BUCKET}/in/m.csv")
        write_bytes(manifest, "\n".join(["uri", there.uri, later.uri, gone.uri]).encode())
        for location in (there, gone):
            write_bytes(location, jpeg(1))
        images, _ = listing(manifest.uri if named_by == "manifest" else there.parent.uri)
        refs = {ref.uri: ref for ref in through_the_inventory(images)}
        for location in (there, later):
            write_bytes(location, jpeg(2))
        delete_file(gone)
        with pytest.raises(RejectedImage, match=REWRITTEN):
            read_image_bytes(refs[there.uri])
        with pytest.raises(RejectedImage, match="gone when it was read"):
            read_image_bytes(refs[gone.uri])
        if named_by == "manifest":
            with pytest.raises(RejectedImage, match=REWRITTEN):
                read_image_bytes(refs[later.uri])
        write_bytes(there, jpeg(1))
        assert read_image_bytes(refs[there.uri]) == jpeg(1)
