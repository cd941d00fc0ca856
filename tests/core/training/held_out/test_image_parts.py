"""Images that are loaded a part at a time: the same in any parts, and no more of them than are needed."""

import numpy as np
import pytest
from support.images.counted import counted_parts

from pneumonia_core.training.augment import Augmentation, vary
from pneumonia_core.training.held_out.images import ImageParts
from pneumonia_core.training.held_out.validation_set import ValidationSet
from pneumonia_core.training.held_out.varied import VariedImages

SIZES = [7, 50, 1, 64]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 24, 24), dtype=np.uint8)


@pytest.mark.parametrize("size", [1, 32, 100, 300, 1000])
def test_batches_are_those_of_one_array(images, size):
    parts, held = counted_parts(images, SIZES)
    chosen = np.random.default_rng(1).random(300) < 0.7
    expected = images[chosen]
    batches = list(parts.batches(size, chosen))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    del batches
    assert held.now == 0


def test_only_parts_with_a_chosen_image_are_loaded(images):
    parts, held = counted_parts(images, [50])
    assert len(parts.select(np.arange(300) == 60)) == 1
    assert held.most == 50
    np.testing.assert_array_equal(parts.first(40), images[:40])
    assert len(parts.first(400)) == 300
    assert parts.select(np.zeros(300, bool)).shape == (0, 24, 24)


def test_a_variation_is_the_one_of_all_images_at_once(images):
    strength = Augmentation(encoder_share=0.5)
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    parts, _ = counted_parts(images, SIZES)
    for _ in range(2):
        expected = vary(images, strength, first)
        varied = VariedImages.draw(parts, strength, second)
        for chosen in (np.ones(300, bool), np.arange(300) % 90 > 70):
            np.testing.assert_array_equal(np.concatenate(list(varied.batches(32, chosen))), expected[chosen])
    assert first.random() == second.random()


def test_images_of_several_networks_are_one_after_the_other(images):
    joined = ImageParts.joined([counted_parts(some, SIZES)[0] for some in np.split(images, [100])])
    np.testing.assert_array_equal(joined.first(300), images)


def test_engines_are_compared_on_images_spread_over_the_set():
    images = np.arange(2000).astype(np.uint8)[:, None, None]
    parts, held = counted_parts(images, [100])
    sample = ValidationSet(parts, np.arange(2000), np.arange(2000)).parity_images()
    expected = np.unique(np.linspace(0, 1999, 512).round().astype(int))
    np.testing.assert_array_equal(sample.labels, expected)
    np.testing.assert_array_equal(sample.images, images[expected])
    assert held.most <= 200
