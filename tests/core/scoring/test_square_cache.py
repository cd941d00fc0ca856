"""The cache of decoded squares: the same images as without it, no original read again, and
no row changed by a failure of it."""

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from itertools import count

import numpy as np
import pytest
from PIL import Image
from support.buckets import BUCKET, Proxy, s3_server, using
from support.images.archived import jpeg, listing, pictures, request, tar_bytes, zip_bytes
from support.images.dicom_files import dicom_file, exposed_phantom
from support.images.pictures import encoded

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.archives.manifests import ABSENT_VERSION
from pneumonia_core.imaging.contract import PREPARATION, Decoded
from pneumonia_core.imaging.decode import decode
from pneumonia_core.imaging.study_key import HASH_KEY_VARIABLE
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.scoring.square_cache import (
    SquareCache,
    index_run,
    open_squares,
    squares_folder,
    with_cached_squares,
)
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.storage.s3 import client as s3_client
from pneumonia_core.storage.traffic import traffic_of
from pneumonia_core.system.failpoints import VARIABLE

SIDE = 32
CHUNK = 8
_runs = count()


def run(
    place: Location, refs: Sequence[ImageRef], images_per_chunk: int = CHUNK, isolated: bool = False
) -> tuple[list[Decoded], list[str]]:
    """What a run over these images decodes with this cache, and the URIs of those that it reads."""
    run_id, read = f"run-{next(_runs):04d}", []
    folder = squares_folder(place, SIDE, trust_chest=False)
    cache = SquareCache(folder, run_id)

    def decode_missing(missing: Sequence[ImageRef]) -> list[Decoded]:
        read.extend(ref.uri for ref in missing)
        return decode_all(missing, SIDE, 2, isolated)

    images: list[Decoded] = []
    for chunk, start in enumerate(range(0, len(refs), images_per_chunk)):
        some = refs[start : start + images_per_chunk]
        images += with_cached_squares(some, SIDE, chunk, cache, decode_missing)
    index_run(folder, run_id)
    return images, read


def facts(images: Sequence[Decoded]) -> list[tuple[object, ...]]:
    """All that a row is made of."""
    return [
        (image.pixels is not None and image.pixels.tobytes(), image.source, image.rejection)
        for image in images
    ]


@pytest.fixture
def refs(tmp_path):
    """The images of a folder with a tar, a zip and DICOM, some of which are rejected."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "a.tar").write_bytes(tar_bytes(pictures(9)))
    (archive / "b.zip").write_bytes(zip_bytes(pictures(7)))
    (archive / "c.dcm").write_bytes(dicom_file(exposed_phantom()))
    for number in range(5):
        (archive / f"d{number}.jpeg").write_bytes(jpeg(50 + number, 300))
    (archive / "e.jpeg").write_bytes(jpeg(60)[:300])
    (archive / "f.jpeg").write_bytes(b"")
    return [request(image) for image in listing(archive)[0]]


@pytest.fixture
def place(tmp_path):
    return open_location(str(tmp_path / "cache"))


@pytest.mark.parametrize("isolated", [False, True])
def test_images_of_the_cache_are_those_of_the_archive(refs, place, isolated):
    plain = decode_all(refs, SIDE, 2, isolated=False)
    first, read = run(place, refs, isolated=isolated)
    assert len(read) == len(refs)
    # Other chunks: those of a later night begin at other images.
    second, read_again = run(place, refs, images_per_chunk=5)
    assert facts(first) == facts(second) == facts(plain)
    rejected = [ref.uri for ref, image in zip(refs, plain, strict=True) if image.rejection is not None]
    assert read_again == rejected
    assert len(rejected) == 2


def test_image_of_another_version_is_read_again(refs, place):
    run(place, refs)
    changed = ImageRef(refs[0].uri, refs[0].source, refs[0].size_bytes, f"{refs[0].version}x")
    assert run(place, [changed])[1] == [changed.uri]


@pytest.mark.parametrize("version", [None, ABSENT_VERSION])
def test_image_whose_version_says_nothing_of_its_content_is_not_cached(refs, place, version):
    file = next(ref for ref in refs if ref.uri.endswith("d0.jpeg"))
    unknown = ImageRef(file.uri, version=None)
    cache = SquareCache(place, "r")
    (image,) = decode_all([unknown], SIDE, 1, isolated=False)
    ref = ImageRef(file.uri, version=version)
    cache.add(0, [(ref, image)])
    index_run(place, "r")
    assert SquareCache(place, "s").find([ref]) == {}
    assert not os.path.exists(place.path)  # noqa: PTH110 - the raw name


@pytest.mark.parametrize("what", ["packs", "index"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "deleted"])
def test_damaged_file_costs_no_more_than_its_squares(refs, place, tmp_path, what, damage):
    whole = facts(run(place, refs)[0])
    for file in [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and what in path.parts]:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(
            {
                "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "cut": content[:middle],
                "empty": b"",
                "deleted": b"",
            }[damage]
        )
        if damage == "deleted":
            file.unlink()
    images, read = run(place, refs)
    assert facts(images) == whole
    if (what, damage) == ("packs", "flipped"):
        # A square of each of the three packs, and the two that are rejected.
        assert len(read) <= 5
    else:
        assert len(read) > 5


def test_pack_that_another_attempt_has_written_anew_gives_no_wrong_square(refs, place):
    good = [
        ref
        for ref, image in zip(refs, decode_all(refs, SIDE, 2, isolated=False), strict=True)
        if image.encoded
    ]
    whole = facts(run(place, good)[0])
    folder = squares_folder(place, SIDE, trust_chest=False)
    (run_id,) = os.listdir(folder.child("index").path)  # noqa: PTH208 - the raw name
    images = decode_all(good[:CHUNK], SIDE, 2, isolated=False)
    SquareCache(folder, run_id).add(0, list(zip(good[:CHUNK], images, strict=True))[::-1])
    assert facts(run(place, good)[0]) == whole


@pytest.mark.parametrize("failing", ["packs", "entries"])
def test_full_disk_of_the_cache_changes_no_image(refs, place, monkeypatch, failing):
    whole = facts(decode_all(refs, SIDE, 2, isolated=False))
    monkeypatch.setenv(VARIABLE, f"write@{failing}=enospc")
    assert facts(run(place, refs)[0]) == whole
    monkeypatch.delenv(VARIABLE)
    images, read = run(place, refs)
    assert facts(images) == whole
    assert len(read) == len(refs)


def test_cache_that_cannot_be_reached_changes_no_image(refs, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    nowhere = open_location(str(tmp_path / "file" / "cache"))
    cache = SquareCache(nowhere, "r")
    for _ in range(2):
        images = list(
            with_cached_squares(
                refs, SIDE, 0, cache, partial(decode_all, image_size=SIDE, threads=2, isolated=False)
            )
        )
        assert facts(images) == facts(decode_all(refs, SIDE, 2, isolated=False))


def test_study_key_of_another_key_is_not_taken(refs, place, monkeypatch):
    monkeypatch.setenv(HASH_KEY_VARIABLE, "one")
    one = facts(run(place, refs)[0])
    monkeypatch.setenv(HASH_KEY_VARIABLE, "two")
    two, read = run(place, refs)
    assert facts(two) == facts(decode_all(refs, SIDE, 2, isolated=False)) != one
    assert [uri for uri in read if uri.endswith(".dcm")]
    assert len(read) == 3


def test_squares_of_another_size_or_of_trusted_chests_lie_apart(place):
    folders = {squares_folder(place, size, trust).uri for size in (32, 64) for trust in (False, True)}
    assert len(folders) == 4


def test_process_reads_the_index_once_for_a_run(place):
    assert open_squares(place, "r") is open_squares(place, "r")
    assert open_squares(place, "r") is not open_squares(place, "s")


def test_squares_change_only_with_the_number_of_the_preparation():
    # Where this fails, decoding gives other pixels than before: raise PREPARATION, and write both down here.
    phantom = exposed_phantom()
    grey = Image.fromarray(phantom)
    deep = Image.fromarray(phantom.astype(np.uint16) * 200)
    sources = [
        encoded(grey, "PNG"),
        encoded(deep, "PNG"),
        encoded(grey, "JPEG"),
        dicom_file(phantom, bits=12),
    ]
    digest = hashlib.sha256(b"".join(decode(source, SIDE).tobytes() for source in sources)).hexdigest()
    assert (PREPARATION, digest[:16]) == (1, "81e864a792dd929c")


def test_rescoring_from_a_bucket_reads_no_original_and_a_range_for_each_chunk():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        client = s3_client.client()
        client.create_bucket(Bucket=BUCKET)
        requests = {}
        for images in (32, 128):
            for number in range(images):
                client.put_object(Bucket=BUCKET, Key=f"{images}/{number:05d}.jpeg", Body=jpeg(number, 128))
            refs = [request(image) for image in listing(f"s3://{BUCKET}/{images}")[0]]
            place = open_location(f"s3://{BUCKET}/cache-{images}")
            whole = facts(run(place, refs, images_per_chunk=16)[0])
            for number in range(images):
                client.delete_object(Bucket=BUCKET, Key=f"{images}/{number:05d}.jpeg")
            requests_before, bytes_before = traffic_of(f"s3://{BUCKET}").succeeded, proxy.to_client
            again, read = run(place, refs, images_per_chunk=16)
            requests[images] = traffic_of(f"s3://{BUCKET}").succeeded - requests_before
            assert facts(again) == whole
            assert read == []
            # A square of 32 px and what is known of its source, among the headers of few answers.
            assert proxy.to_client - bytes_before < 1500 * images
        # Names and content of the index, and then a range for each chunk.
        assert requests[128] - requests[32] == (128 - 32) // 16
        assert requests[32] <= 4 + 32 // 16
