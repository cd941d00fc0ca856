"""Reading ahead: many images of a bucket at once, in order, within bounds; local ones are left to the
decoding."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import boto3
import pytest
from support.buckets import BUCKET, Proxy, s3_server, using
from support.images.archived import jpeg, listing, pictures, request, tar_bytes

from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.errors import Rejection
from pneumonia_core.scoring import prefetch
from pneumonia_core.scoring.decoding import decode_ahead, read_and_decode
from pneumonia_core.storage.limits import LIMITS

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
    return [request(image) for image in listing(archive)[0]]


def read(
    refs: list[ImageRef], in_flight: int = 12, max_bytes: int = prefetch.MAX_BYTES_AHEAD
) -> list[FetchedImage]:
    with ThreadPoolExecutor(in_flight) as readers:
        return list(prefetch.with_remote_bytes(map(FetchedImage, refs), readers, in_flight, max_bytes))


@pytest.mark.parametrize("archive", ["in", "a.tar"])
def test_many_images_of_a_bucket_are_asked_for_at_once_and_come_in_order(proxy, archive):
    refs = refs_of(f"s3://{BUCKET}/{archive}")
    proxy.delay_s, proxy.most_at_once = 0.1, 0
    found = read(refs)
    proxy.delay_s = 0.0
    assert [image.ref.uri for image in found] == [ref.uri for ref in refs]
    assert sorted(image.content for image in found) == sorted(pictures(IMAGES).values())
    assert 6 <= proxy.most_at_once <= 12


def test_what_is_read_ahead_is_bounded_in_bytes(proxy):
    refs = refs_of(f"s3://{BUCKET}/in")
    proxy.delay_s, proxy.most_at_once = 0.05, 0
    assert len(read(refs, max_bytes=2 * max(ref.size_bytes for ref in refs))) == IMAGES
    proxy.delay_s = 0.0
    assert proxy.most_at_once <= 3


def test_image_that_cannot_be_read_has_its_reason_and_the_others_their_bytes(proxy):
    refs = refs_of(f"s3://{BUCKET}/in")
    refs[5] = ImageRef(f"{refs[5].uri}.gone")
    found = read(refs)
    assert isinstance(found[5].content, Rejection)
    assert found[5].content.reason == "not_found"
    assert sum(isinstance(image.content, bytes) for image in found) == IMAGES - 1


def test_local_images_are_not_read_ahead(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpeg").write_bytes(jpeg(number))
    refs = refs_of(tmp_path)
    assert read(refs) == [FetchedImage(ref) for ref in refs]


def test_decoding_gives_the_same_from_a_bucket_as_image_by_image(proxy):
    refs = refs_of(f"s3://{BUCKET}/in")
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(8) as readers:
        decoded = list(decode_ahead(refs, 32, pool, readers, 8, read_and_decode, max_bytes=5000))
    assert [image.source for image in decoded] == [
        read_and_decode(FetchedImage(ref), 32).source for ref in refs
    ]


def test_results_of_threads_come_in_the_order_of_the_items_and_begin_in_bounds():
    begun, given = [], []

    def start(number: int) -> Future[int] | int:
        begun.append(number)
        assert len(begun) - len(given) <= 4
        return pool.submit(_slowly, number) if number % 3 else number

    with ThreadPoolExecutor(4) as pool:
        for number in prefetch.ordered(range(20), start, 4, lambda number: 1, 3, 60):
            given.append(number)
    assert given == begun == list(range(20))


def _slowly(number: int) -> int:
    time.sleep(0.01 * (number % 5))
    return number


def test_work_that_has_not_begun_is_cancelled_after_an_error():
    """The next chunk needs the threads that would read images of this one from a bucket that is away."""
    failing, done, begun = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        begun.append(number)
        (failing if number == 0 else done).wait(10)
        raise ConnectionError

    with ThreadPoolExecutor(1) as pool:
        results = prefetch.ordered(range(8), lambda number: pool.submit(work, number), 4, lambda _: 0, 9, 60)
        threading.Timer(0.1, failing.set).start()
        with pytest.raises(ConnectionError):
            next(results)
        done.set()
    assert begun[0] == 0
    assert len(begun) <= 2


def test_reader_that_waits_for_a_busy_bucket_is_not_taken_for_a_stuck_one():
    assert 2 * LIMITS.give_up_after_s < prefetch._STUCK_AFTER_S


def test_work_that_does_not_end_is_a_timeout():
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(TimeoutError):
            next(prefetch.ordered([1], lambda _: pool.submit(done.wait), 1, lambda _: 0, 0, 0.05))
        done.set()
