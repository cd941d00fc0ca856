import dataclasses
import time

import numpy as np
import pytest

from pneumonia_core.training import augment
from pneumonia_core.training.augment import (
    STRENGTHS,
    Augmentation,
    Augmenter,
    augmentation_of,
    draw,
    reencode_some,
    vary,
)
from pneumonia_core.training.recipe import AUGMENT, Recipe

SIZE = 96
STILL = STRENGTHS["none"]


@pytest.fixture(scope="module")
def images():
    """Smooth pictures, each with one bright spot at (x 30, y 20)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    spot = 200 * np.exp(-((x - 30) ** 2 + (y - 20) ** 2) / 30)
    return np.repeat((40 + spot)[None], 8, axis=0).astype(np.uint8)


def augmented(images, strength, seed=0):
    drawn = draw(np.random.default_rng(seed), len(images), SIZE, strength)
    return np.asarray(Augmenter(SIZE)(images, drawn))


def spot_of(image):
    y, x = np.unravel_index(np.argmax(image), image.shape)
    return x, y


def test_no_strength_leaves_the_images_alone(images):
    np.testing.assert_allclose(augmented(images, STILL), images, atol=1e-3)


def test_each_named_strength_varies_images_more_than_the_one_before(images):
    assert tuple(STRENGTHS) == AUGMENT
    many = np.repeat(images, 8, axis=0)
    moved = []
    for name in AUGMENT:
        strength = augmentation_of(Recipe(augment=name, flip=False))
        varied = augmented(reencode_some(many, np.random.default_rng(0), strength), strength)
        moved.append(np.abs(varied - many).mean())
    assert moved[0] == pytest.approx(0, abs=1e-3)
    assert moved == sorted(moved)


def test_no_image_is_mirrored_where_the_recipe_says_so(images):
    for name in AUGMENT:
        assert not augmentation_of(Recipe(augment=name, flip=False)).flip
    assert augmentation_of(Recipe()) == Augmentation()


def test_the_same_seed_gives_the_same_images_and_another_seed_others(images):
    first, again = (augmented(images, Augmentation(), seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, augmented(images, Augmentation(), seed=5))


def test_images_of_a_batch_vary_independently(images):
    out = augmented(images, Augmentation())
    assert len({image.tobytes() for image in out}) == len(images)


def test_flip_mirrors_left_and_right(images):
    out = augmented(images, dataclasses.replace(STILL, flip=True))
    assert {spot_of(image) for image in out} == {(30, 20), (SIZE - 1 - 30, 20)}


def test_geometry_stays_within_its_bounds(images):
    still = dataclasses.replace(STILL, in_place=0)
    moved = [spot_of(i) for i in augmented(images, dataclasses.replace(still, translation=0.06))]
    assert all(abs(x - 30) <= 0.06 * SIZE + 1 and abs(y - 20) <= 0.06 * SIZE + 1 for x, y in moved)
    magnified = [spot_of(i) for i in augmented(images, dataclasses.replace(still, zoom=(0.8, 0.8)))]
    centre = (SIZE - 1) / 2
    assert all(abs(x - (centre + (30 - centre) / 0.8)) <= 1 for x, _ in magnified)
    turned = [spot_of(i) for i in augmented(images, dataclasses.replace(still, rotation_deg=5))]
    radii = [np.hypot(x - centre, y - centre) for x, y in turned]
    np.testing.assert_allclose(radii, np.hypot(30 - centre, 20 - centre), atol=1.5)


def test_no_border_is_added(images):
    moved = dataclasses.replace(STILL, in_place=0, translation=0.1, rotation_deg=10, zoom=(1.0, 1.5))
    many = np.repeat(images, 8, axis=0)
    out = augmented(many, moved)
    assert out.min() >= many.min() - 1e-3
    # The spot lies inside, so that beyond it every image is as dark as its border.
    np.testing.assert_allclose(out[:, [0, 0, -1, -1], [0, -1, 0, -1]], many.min(), atol=1.0)


def test_some_images_keep_their_pixels_but_for_the_flip(images):
    strength = dataclasses.replace(Augmentation(), contrast=0, brightness=0, encoder_share=0, in_place=0.5)
    many = np.repeat(images, 16, axis=0)
    out = augmented(many, strength)
    mirrored = many[:, :, ::-1]
    same = [np.allclose(a, b, atol=1e-2) or np.allclose(a, c, atol=1e-2)
            for a, b, c in zip(out, many, mirrored, strict=True)]  # fmt: skip
    assert 0.3 < np.mean(same) < 0.7


def test_values_stay_grey_levels(images):
    out = augmented(images, dataclasses.replace(Augmentation(), brightness=0.9, contrast=0.9))
    assert out.dtype == np.float32
    assert out.min() >= 0
    assert out.max() <= 255


def test_blur_keeps_the_mean_and_lowers_the_detail(images):
    rng = np.random.default_rng(0)
    noisy = rng.integers(60, 200, images.shape).astype(np.uint8)
    out = augmented(noisy, dataclasses.replace(STILL, encoder_share=1, noise=0))
    np.testing.assert_allclose(out.mean(axis=(1, 2)), noisy.mean(axis=(1, 2)), atol=1)
    assert (out.std(axis=(1, 2)) < noisy.std(axis=(1, 2))).all()


def test_reencoding_changes_some_images_a_little_and_leaves_its_input_alone(images):
    rng = np.random.default_rng(0)
    noisy = rng.integers(60, 200, (40, SIZE, SIZE)).astype(np.uint8)
    before = noisy.copy()
    out = reencode_some(noisy, rng)
    changed = (out != noisy).any(axis=(1, 2))
    assert 4 < changed.sum() < 32
    assert np.abs(out.astype(int) - noisy).mean() < 30
    np.testing.assert_array_equal(noisy, before)


def test_reencoding_in_threads_gives_the_same_images():
    noisy = np.random.default_rng(2).integers(60, 200, (40, SIZE, SIZE)).astype(np.uint8)
    generators = [np.random.default_rng(5) for _ in range(2)]
    alone, together = (
        reencode_some(noisy, rng, threads=threads) for rng, threads in zip(generators, (1, 4), strict=True)
    )
    np.testing.assert_array_equal(together, alone)
    assert generators[0].random() == generators[1].random()


def test_augmentation_is_quicker_than_any_network_trains():
    """A ResNet-18 trains at some 40 images/s on a core; augmentation must be far above that. CPU
    time, so that a busy machine does not count."""
    batch = np.random.default_rng(0).integers(0, 256, (32, 224, 224), dtype=np.uint8)
    rng, augmenter = np.random.default_rng(0), Augmenter(224)
    augmenter(batch, draw(rng, 32, 224))
    started = time.process_time()
    for _ in range(3):
        np.asarray(augmenter(reencode_some(batch, rng), draw(rng, 32, 224)))
    assert 96 / (time.process_time() - started) > 150


def test_varying_many_images_makes_floats_of_one_small_batch_after_the_other(monkeypatch):
    """And gives what varying all of them at once gave."""
    batches = []

    class Counting(Augmenter):
        def __call__(self, images, variation):
            batches.append(len(images))
            return super().__call__(images, variation)

    monkeypatch.setattr(augment, "Augmenter", Counting)
    images = np.random.default_rng(3).integers(0, 256, (1024, 32, 32), dtype=np.uint8)
    varied = vary(images, Augmentation(), np.random.default_rng(0))
    assert max(batches) <= 32
    assert sum(batches) == 1024
    rng, augmenter = np.random.default_rng(0), Augmenter(32)
    floats = [np.asarray(augmenter(some, draw(rng, 32, 32))) for some in np.split(images, 32)]
    expected = reencode_some(np.concatenate(floats).round().astype(np.uint8), rng)
    np.testing.assert_array_equal(varied, expected)
