"""The road of an image to its pixels is the same from a disk, a bucket, a tar and a zip, and reads it
once."""

import gzip
import sys
from collections import Counter

import numpy as np
import pytest
from support.buckets import BUCKET, s3_server, using
from support.images.archived import jpeg, listing, pictures, request, tar_bytes, zip_bytes

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.storage.s3 import client as s3_client

SIDE = 32


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "xrays"
    write_labelled(folder, 5, 1, size=(64, 80), seed=2)
    return folder


@pytest.fixture(scope="module")
def bucket(labelled):
    files = {str(path.relative_to(labelled)): path.read_bytes() for path in sorted(labelled.rglob("*.jpeg"))}
    with s3_server() as endpoint, using(endpoint):
        client = s3_client.client()
        client.create_bucket(Bucket=BUCKET)
        for name, data in {**{f"set/{name}": data for name, data in files.items()}, **pictures(24)}.items():
            client.put_object(Bucket=BUCKET, Key=name, Body=data)
        client.put_object(Bucket=BUCKET, Key="set.tar", Body=tar_bytes(files))
        client.put_object(Bucket=BUCKET, Key="set.tar.gz", Body=gzip.compress(tar_bytes(files)))
        client.put_object(Bucket=BUCKET, Key="set.zip", Body=zip_bytes(files))
        yield f"s3://{BUCKET}"


def decoded(data: object, isolated: bool = False) -> list:
    return decode_all([image.ref for image in read_labelled(str(data))], SIDE, 2, isolated)


@pytest.mark.parametrize("name", ["set", "set.tar", "set.tar.gz", "set.zip"])
def test_labelled_set_in_a_bucket_has_the_pixels_of_the_local_folder(bucket, labelled, name):
    local, remote = decoded(labelled), decoded(f"{bucket}/{name}")
    assert [image.source for image in remote] == [image.source for image in local]
    np.testing.assert_array_equal([image.pixels for image in remote], [image.pixels for image in local])


def test_children_give_the_same_pixels(labelled):
    np.testing.assert_array_equal(
        [image.pixels for image in decoded(labelled, isolated=True)],
        [image.pixels for image in decoded(labelled)],
    )


@pytest.mark.parametrize("count", [6, 24])
def test_each_object_is_read_with_one_request(bucket, count):
    asked = Counter()

    def tally(request, **_):
        asked[f"{request.method} {request.url}"] += 1

    events = s3_client.client().meta.events
    refs = [ImageRef(f"{bucket}/{name}") for name in pictures(count)]
    events.register("before-send.s3", tally, unique_id="tally")
    try:
        images = decode_all(refs, SIDE, 2, isolated=False)
    finally:
        events.unregister("before-send.s3", unique_id="tally")
    assert all(image.rejection is None for image in images)
    assert list(asked.values()) == [1] * count


@pytest.mark.parametrize("count", [6, 24])
def test_each_file_is_opened_once(tmp_path, count, opened_files):
    for number in range(count):
        (tmp_path / f"{number}.jpeg").write_bytes(jpeg(number))
    refs = [request(image) for image in listing(tmp_path)[0]]
    opened_files.clear()
    decode_all(refs, SIDE, 2, isolated=False)
    assert {path: number for path, number in opened_files.items() if path.startswith(str(tmp_path))} == {
        ref.uri.removeprefix("file://"): 1 for ref in refs
    }


_opened: Counter[str] = Counter()
_is_counting = False


def _count(event, arguments):
    if _is_counting and event == "open" and isinstance(arguments[0], str):
        _opened[arguments[0]] += 1


@pytest.fixture(scope="module")
def _audit():
    # A hook stays until the process ends.
    sys.addaudithook(_count)


@pytest.fixture
def opened_files(_audit):
    """How often each path is opened by this process."""
    global _is_counting
    _opened.clear()
    _is_counting = True
    yield _opened
    _is_counting = False


def test_file_without_permission_is_forbidden_and_one_that_is_gone_not_found(not_root):
    for name in ("may not", "gone", "may"):
        (not_root / name).write_bytes(jpeg(1))
    (not_root / "may not").chmod(0)
    (not_root / "gone").unlink()
    refs = [ImageRef(f"file://{not_root}/{name}") for name in ("may not", "gone", "may")]
    rejections = [image.rejection for image in decode_all(refs, SIDE, 1, isolated=False)]
    assert [each and each.reason for each in rejections] == ["forbidden", "not_found", None]
