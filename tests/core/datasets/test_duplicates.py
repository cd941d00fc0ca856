"""Equal files and look-alikes, found without comparing all with all."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.images.pictures import as_jpeg

from pneumonia_core.datasets.duplicates import MAX_DISTANCE, lookalikes, same_files
from pneumonia_core.datasets.image_facts import HASH_BYTES, IMAGE_SIZE, perceptual_hash
from pneumonia_core.imaging.decode import decode
from pneumonia_core.phantoms.radiograph import phantom


def flipped(looks: bytes, bits: np.ndarray) -> bytes:
    changed = np.unpackbits(np.frombuffer(looks, np.uint8))
    changed[bits] ^= 1
    return np.packbits(changed).tobytes()


def test_equal_files_are_grouped_and_their_pairs_counted():
    found = same_files(["a", "b", None, "a", "c", "a", "b", None])
    assert [group.tolist() for group in found.groups] == [[0, 3, 5], [1, 6]]
    assert (found.images, found.pairs) == (5, 4)
    assert same_files([]).groups == []


def test_every_pair_of_up_to_fifteen_different_bits_is_found():
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(HASH_BYTES) for _ in range(400)]
    near = [flipped(looks, rng.choice(256, 15, replace=False)) for looks in hashes]
    both = hashes + near
    found = lookalikes(both, [str(number) for number in range(len(both))])
    assert {tuple(group.tolist()) for group in found.groups} == {(n, n + 400) for n in range(400)}
    assert found.pairs == 400


def test_nearly_every_pair_at_the_limit_is_found_and_none_beyond_it():
    rng = np.random.default_rng(1)
    hashes = [rng.bytes(HASH_BYTES) for _ in range(1000)]
    at = [flipped(looks, rng.choice(256, MAX_DISTANCE, replace=False)) for looks in hashes]
    beyond = [flipped(looks, rng.choice(256, MAX_DISTANCE + 1, replace=False)) for looks in hashes]
    digests = [str(number) for number in range(2000)]
    assert lookalikes(hashes + at, digests).pairs > 950
    assert lookalikes(hashes + beyond, digests).pairs == 0


def test_chains_of_lookalikes_are_one_group_and_files_alike_stand_once():
    rng = np.random.default_rng(2)
    first = rng.bytes(HASH_BYTES)
    second = flipped(first, np.arange(14))
    third = flipped(second, np.arange(100, 114))
    found = lookalikes([first, None, second, third, third, first], ["a", "b", "c", "d", "d", "e"])
    assert [group.tolist() for group in found.groups] == [[0, 2, 3, 5]]
    # first = last; first and last with second; second with third.
    assert found.pairs == 4


@pytest.mark.timeout(60)
def test_equal_hashes_are_not_compared_with_each_other():
    hashes = [bytes(HASH_BYTES)] * 20_000
    found = lookalikes(hashes, [str(number) for number in range(20_000)])
    assert (len(found.groups), found.pairs) == (1, 20_000 * 19_999 // 2)


@pytest.mark.timeout(120)
def test_hundred_thousand_images_are_looked_up_in_seconds():
    rng = np.random.default_rng(3)
    hashes = [rng.bytes(HASH_BYTES) for _ in range(100_000)]
    assert lookalikes(hashes, [str(number) for number in range(100_000)]).pairs == 0


def test_phantom_encoded_anew_resized_or_brightened_looks_the_same_and_others_do_not():
    pictures = [Image.fromarray(phantom(0, seed, seed, (512, 512))) for seed in range(12)]
    variants = [
        *pictures,
        *(picture.resize((300, 420)) for picture in pictures),
        *(ImageEnhance.Brightness(picture).enhance(1.1) for picture in pictures),
    ]
    hashes = [
        perceptual_hash(decode(as_jpeg(picture, 40 + n % 50), IMAGE_SIZE))
        for n, picture in enumerate(variants)
    ]
    found = lookalikes(hashes, [str(number) for number in range(36)])
    assert [group.tolist() for group in found.groups] == [[n, n + 12, n + 24] for n in range(12)]
