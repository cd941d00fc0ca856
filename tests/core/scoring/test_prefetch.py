"""Reading ahead: many images of a bucket at once, in order, within bounds; local ones are left to the decoding."""

from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from support.archived import jpeg, listing, pictures, tar_bytes
from support.buckets import BUCKET, Proxy, s3_server, using

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.scoring import prefetch
from pneumonia_core.scoring.chunk import decode_ahead, read_and_decode

IMAGES = 24


@pytest.fixture(scope="module")
def proxy():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        files = pictures(IMAGES)
        for name, data in files.items():
            client.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=data)
        client.put_object(Bucket=BUCKET, Key="a.tar", Body=tar_bytes(files))
        yield proxy


def refs_of(archive: object) -> list[ImageRef]:
    return [ImageRef(image.uri, image.member, image.size_bytes) for image in listing(archive)[0]]


def read(refs: list[ImageRef], in_flight: int = 12) -> list[ImageRef]:
    with ThreadPoolExecutor(in_flight) as readers:
        return list(prefetch.with_remote_bytes(refs, readers, in_flight))


@pytest.mark.parametrize("archive", ["in", "a.tar"])
def test_many_images_of_a_bucket_are_asked_for_at_once_and_come_in_order(proxy, archive):
    refs = refs_of(f"s3://{BUCKET}/{archive}")
    proxy.delay_s, proxy.most_at_once = 0.1, 0
    found = read(refs)
    proxy.delay_s = 0.0
    assert [ref.uri for ref in found] == [ref.uri for ref in refs]
    assert sorted(ref.data for ref in found) == sorted(pictures(IMAGES).values())
    assert 6 <= proxy.most_at_once <= 12


def test_what_is_read_ahead_is_bounded_in_bytes(proxy, monkeypatch):
    refs = refs_of(f"s3://{BUCKET}/in")
    monkeypatch.setattr(prefetch, "MAX_BYTES_AHEAD", 2 * max(ref.size_bytes for ref in refs))
    proxy.delay_s, proxy.most_at_once = 0.05, 0
    assert len(read(refs)) == IMAGES
    proxy.delay_s = 0.0
    assert proxy.most_at_once <= 3


def test_image_that_cannot_be_read_has_its_reason_and_the_others_their_bytes(proxy):
    refs = refs_of(f"s3://{BUCKET}/in")
    refs[5] = ImageRef(f"{refs[5].uri}.gone")
    found = read(refs)
    assert found[5].rejection is not None
    assert found[5].rejection[0] == "not_found"
    assert sum(ref.data is not None for ref in found) == IMAGES - 1


def test_local_images_are_not_read_ahead(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpeg").write_bytes(jpeg(number))
    refs = refs_of(tmp_path)
    assert read(refs) == refs


def test_decoding_gives_the_same_from_a_bucket_as_image_by_image(proxy, monkeypatch):
    monkeypatch.setattr("pneumonia_core.scoring.chunk.MAX_BYTES_AHEAD", 5000)
    refs = refs_of(f"s3://{BUCKET}/in")
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(8) as readers:
        decoded = list(decode_ahead(refs, 32, pool, readers, 8))
    assert [image.sha256 for image in decoded] == [read_and_decode(ref, 32).sha256 for ref in refs]
