"""Random variation of training images: geometry, exposure, and encoder artefacts.

numpy draws the random parameters on the host (`draw`). The heavy arithmetic is plain Keras (`Augmenter`), so
it runs inside the training step, on the device that trains.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from PIL import Image

from pneumonia_core.training.recipe import Recipe

NOISE_FIELDS: Final = 16
VARIED_AT_ONCE: Final = 32


@dataclass(frozen=True)
class Augmentation:
    """How strongly images vary. Each value is the extreme, as a fraction of the side or of the grey range.

    `zoom` bounds the share of the source's side that fills the side of the result, per axis; 0.8 magnifies by
    1.25. `in_place` is the share of images that keep their geometry except for the flip. All others are
    resampled, which blurs them a little. `blur` is the weight of each neighbour in a three-tap filter
    (at 1/3 it is their mean), `noise` a standard deviation in grey levels. `encoder_share` is the share of
    images to which blur is applied, likewise noise and JPEG.

    The defaults were the best of those tried on half of Kermany's test split. The zoom per axis hides the
    shape of the film; blur and JPEG hide the encoder. Both separate normal from pneumonia in that set.
    """

    translation: float = 0.06
    rotation_deg: float = 5.0
    zoom: tuple[float, float] = (0.8, 1.12)
    flip: bool = True
    in_place: float = 0.0
    contrast: float = 0.25
    brightness: float = 0.12
    blur: float = 0.33
    noise: float = 0.0
    jpeg_quality: tuple[int, int] = (40, 95)
    encoder_share: float = 0.5


# By their names in a recipe.
STRENGTHS: Final = {
    "none": Augmentation(
        translation=0, rotation_deg=0, zoom=(1, 1), flip=False, in_place=1, contrast=0, brightness=0,
        encoder_share=0,
    ),
    "light": Augmentation(
        translation=0.04, rotation_deg=3, zoom=(0.9, 1.1), contrast=0.15, brightness=0.08, blur=0.15,
        noise=3, jpeg_quality=(60, 95), encoder_share=0.3,
    ),
    "default": Augmentation(),
    "strong": Augmentation(
        translation=0.1, rotation_deg=10, zoom=(0.65, 1.5), contrast=0.4, brightness=0.2, blur=0.33,
        noise=10, jpeg_quality=(25, 95), encoder_share=0.6,
    ),
}  # fmt: skip


def augmentation_of(recipe: Recipe) -> Augmentation:
    """The strength that a recipe names."""
    strength = STRENGTHS[recipe.augment]
    return replace(strength, flip=strength.flip and recipe.flip)


class Variation(NamedTuple):
    """The parameters of Augmenter for B images.

    A NamedTuple, because TensorFlow passes tuples of arrays through its functions. `transforms` float32 [B,
    8] lead from pixels of the result to pixels of the source; the other arrays are float32 [B], `noise_field`
    is int32 [B].
    """

    transforms: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    blur: np.ndarray
    noise: np.ndarray
    noise_field: np.ndarray

    def select(self, some: slice) -> "Variation":
        """The parameters of some of the images."""
        return Variation(*(values[some] for values in self))


def draw(
    rng: np.random.Generator, count: int, size: int, strength: Augmentation = Augmentation()
) -> Variation:
    """Random parameters for `count` images of `size` px."""

    def uniform(extreme: float) -> np.ndarray:
        return rng.uniform(-extreme, extreme, count).astype(np.float32)

    def sometimes(largest: float) -> np.ndarray:
        chosen = rng.random(count) < strength.encoder_share
        return (chosen * rng.uniform(0, largest, count)).astype(np.float32)

    # The order of the draws is part of what a seed repeats.
    return Variation(
        transforms=_transforms(rng, count, size, strength),
        contrast=1 + uniform(strength.contrast),
        brightness=255 * uniform(strength.brightness),
        blur=sometimes(strength.blur),
        noise=sometimes(strength.noise) * rng.choice(np.array([-1, 1], np.float32), count),
        noise_field=rng.integers(0, NOISE_FIELDS, count).astype(np.int32),
    )


def _transforms(rng: np.random.Generator, count: int, size: int, strength: Augmentation) -> np.ndarray:
    """Projective transforms float32 [count, 8] from result to source pixels, about the centre."""
    moved = rng.random(count) >= strength.in_place
    angle = moved * np.deg2rad(rng.uniform(-strength.rotation_deg, strength.rotation_deg, count))
    zoom_x, zoom_y = np.exp(
        moved * rng.uniform(math.log(strength.zoom[0]), math.log(strength.zoom[1]), (2, count))
    )
    mirror = np.where(strength.flip & (rng.random(count) < 0.5), -1.0, 1.0)
    shift_x, shift_y = moved * rng.uniform(-strength.translation, strength.translation, (2, count)) * size
    a0, a1 = np.cos(angle) * zoom_x * mirror, -np.sin(angle) * zoom_y
    b0, b1 = np.sin(angle) * zoom_x * mirror, np.cos(angle) * zoom_y
    centre = (size - 1) / 2
    a2 = centre + shift_x - (a0 + a1) * centre
    b2 = centre + shift_y - (b0 + b1) * centre
    zero = np.zeros(count)
    return np.stack([a0, a1, a2, b0, b1, b2, zero, zero], axis=1).astype(np.float32)


class Augmenter:
    """Applies a Variation to a batch with Keras operations, on any backend and device.

    Beyond its border an image goes on as its outermost pixels. A black outside would show where an image has
    a bright border, as images with pneumonia more often have: networks trained on it took black corners for a
    sign of pneumonia, and a rotation by 3° moved scores twice to three times as far.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        # Drawing noise for every batch would cost more than everything else. A few fields, scaled and of
        # either sign, are as good: they do not move with the geometry of any image.
        fields = np.random.default_rng(seed).standard_normal((NOISE_FIELDS, size, size), dtype=np.float32)
        self._noise_fields = ops.convert_to_tensor(fields)

    def __call__(self, images: np.ndarray | keras.KerasTensor, variation: Variation) -> keras.KerasTensor:
        """Varied images float32 [B, H, W], 0 to 255, of uint8 or float32 [B, H, W]."""
        x = ops.expand_dims(ops.cast(images, "float32"), -1)
        x = ops.image.affine_transform(x, variation.transforms, interpolation="bilinear", fill_mode="nearest")
        x = ops.squeeze(x, -1)
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        x = (x - mean) * _per_image(variation.contrast) + mean + _per_image(variation.brightness)
        x = _blur(x, _per_image(variation.blur))
        x = x + _per_image(variation.noise) * ops.take(self._noise_fields, variation.noise_field, axis=0)
        return ops.clip(x, 0.0, 255.0)


def _per_image(values: keras.KerasTensor) -> keras.KerasTensor:
    return ops.reshape(values, (-1, 1, 1))


def _blur(x: keras.KerasTensor, weight: keras.KerasTensor) -> keras.KerasTensor:
    rows = ops.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    x = x * (1 - 2 * weight) + weight * (rows[:, :-2] + rows[:, 2:])
    columns = ops.pad(x, ((0, 0), (0, 0), (1, 1)), mode="reflect")
    return x * (1 - 2 * weight) + weight * (columns[:, :, :-2] + columns[:, :, 2:])


def reencode_some(
    images: np.ndarray,
    rng: np.random.Generator,
    strength: Augmentation = Augmentation(),
    threads: int = 1,
) -> np.ndarray:
    """A copy of images uint8 [B, H, W], some of them encoded as JPEG of random quality and decoded again."""
    return reencode_with(images, draw_qualities(rng, len(images), strength), threads)


def draw_qualities(
    rng: np.random.Generator, count: int, strength: Augmentation = Augmentation()
) -> np.ndarray:
    """Random JPEG qualities int [count]; 0 for an image that is not encoded again."""
    qualities = np.zeros(count, int)
    for index in np.flatnonzero(rng.random(count) < strength.encoder_share):
        qualities[index] = rng.integers(*strength.jpeg_quality, endpoint=True)
    return qualities


def reencode_with(images: np.ndarray, qualities: np.ndarray, threads: int = 1) -> np.ndarray:
    """A copy of images uint8 [B, H, W], encoded as JPEG of these qualities and decoded again.

    Those of quality 0 stay as they are. The result is the same in any number of threads.
    """
    images = images.copy()
    chosen = np.flatnonzero(qualities)
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        for index, image in zip(chosen, each(_reencoded, images[chosen], qualities[chosen]), strict=True):
            images[index] = image
    return images


def _reencoded(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


@dataclass(frozen=True)
class Variations:
    """What makes variations of N images: the parameters of Augmenter, and JPEG qualities int [N].

    Images are varied in groups of VARIED_AT_ONCE.
    """

    parameters: Variation
    qualities: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, size: int, strength: Augmentation) -> Self:
        """Random ones for `count` images of `size` px: 60 bytes for each."""
        # The order of the draws, by groups and qualities last, is part of what a seed repeats.
        groups = [draw(rng, some.stop - some.start, size, strength) for some in _groups(count)]
        parameters = Variation(*map(np.concatenate, zip(*groups, strict=True)))
        return cls(parameters, draw_qualities(rng, count, strength))

    def groups(self) -> list[slice]:
        """Which images are varied at once."""
        return _groups(len(self.qualities))

    def select(self, some: slice) -> "Variations":
        """Those of some of the images."""
        return Variations(self.parameters.select(some), self.qualities[some])

    def apply(self, images: np.ndarray, augment: Augmenter) -> np.ndarray:
        """The varied images uint8 [N, H, W] of one group of images uint8 [N, H, W]."""
        varied = np.asarray(augment(images, self.parameters)).round().astype(np.uint8)
        return reencode_with(varied, self.qualities)


def _groups(count: int) -> list[slice]:
    """The images of each group."""
    return [slice(start, min(start + VARIED_AT_ONCE, count)) for start in range(0, count, VARIED_AT_ONCE)]


def vary(images: np.ndarray, strength: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Random variations uint8 [N, H, W] of images uint8 [N, H, W]."""
    size = images.shape[1]
    drawn, augment = Variations.draw(rng, len(images), size, strength), Augmenter(size)
    # Each group in bytes at once: all images in float32 took four times as much memory.
    return np.concatenate([drawn.select(some).apply(images[some], augment) for some in drawn.groups()])
