"""Buckets with objects in cold storage, and gateways whose answers have no ETags."""

import gzip

import pytest
from support.buckets import BUCKET, IN_COLD_STORAGE, Proxy, s3_server, using
from support.images.archived import contents, jpeg, listing, pictures, request, tar_bytes, zip_bytes

from pneumonia_core.archives.archive import fetch_image
from pneumonia_core.archives.skipped import describe_skipped, may_hide_images
from pneumonia_core.errors import Rejection
from pneumonia_core.storage.errors import COLD
from pneumonia_core.storage.files import delete_folder, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import client as s3_client

ARCHIVE = f"s3://{BUCKET}/in"
FILES = pictures(4)


@pytest.fixture(scope="module")
def server():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        yield proxy


@pytest.fixture
def proxy(server):
    tar = tar_bytes(FILES)
    for name, body in {
        "x.jpeg": jpeg(1), "a.tar": tar, "b.zip": zip_bytes(FILES), "c.tar.gz": gzip.compress(tar),
    }.items():  # fmt: skip
        write_bytes(open_location(f"{ARCHIVE}/{name}"), body)
    yield server
    server.fail(None)
    server.hides_etags = False
    delete_folder(open_location(ARCHIVE))


def test_archives_in_cold_storage_are_counted_and_the_rest_is_listed(proxy):
    proxy.fail(r"GET .*(a\.tar|b\.zip|c\.tar)", refusal=IN_COLD_STORAGE)
    images, skipped = listing(ARCHIVE)
    assert contents(images) == {f"{ARCHIVE}/x.jpeg": jpeg(1)}
    assert skipped == may_hide_images(skipped) == {"cold_archive": 3}
    assert describe_skipped(skipped) == "3 archive in cold storage"


def test_image_in_cold_storage_is_forbidden_and_the_row_says_why(proxy):
    proxy.fail(r"GET .*x\.jpeg", refusal=IN_COLD_STORAGE)
    images, _ = listing(ARCHIVE)
    (image,) = (fetch_image(request(image)) for image in images if image.uri.endswith("/x.jpeg"))
    assert image.content == Rejection("forbidden", COLD)


def test_versions_without_etags_are_sizes_and_times_by_which_reads_are_checked(proxy):
    proxy.hides_etags = True
    images, _ = listing(ARCHIVE)
    members = [data for _ in range(3) for data in FILES.values()]
    assert sorted(contents(images).values()) == sorted([*members, jpeg(1)])
    (single,) = (image for image in images if image.uri.endswith("/x.jpeg"))
    assert single.version.startswith(f"{len(jpeg(1))}@20")
    others = {name: jpeg(number + 50, 128) for number, name in enumerate(FILES)}
    for name, body in {"a.tar": tar_bytes(others), "c.tar.gz": gzip.compress(tar_bytes(others))}.items():
        write_bytes(open_location(f"{ARCHIVE}/{name}"), body)
    of_tars = [image for image in images if ".tar" in image.uri]
    assert set(contents(of_tars).values()) == {"unreadable"}


def test_listing_without_etags_fits_answers_that_have_them(proxy):
    proxy.hides_etags = True
    images, _ = listing(ARCHIVE)
    proxy.hides_etags = False
    assert sorted(set(contents(images).values())) == sorted({*FILES.values(), jpeg(1)})
