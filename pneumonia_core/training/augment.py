"""Random variation of training images: geometry, exposure, and the traces an encoder leaves.

Everything random is drawn by numpy on the host (`draw`), everything heavy is plain Keras arithmetic
(`Augmenter`), so that it runs inside the training step, on the device that trains.
"""

import io
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from keras import ops
from PIL import Image

NOISE_FIELDS: Final = 16


@dataclass(frozen=True)
class Augmentation:
    """How strongly images vary: fractions are of the image's side or of the grey range, each the extreme.

    `zoom` bounds how much of a side of the source fills the side of the result, per axis, 0.8 being
    magnification by 1.25. `in_place` is the share of images that keep their geometry but for the flip: every other one
    is resampled, which blurs it a little, and a network that never sees a pixel as it was read is at its best on
    images that it is never asked about. `blur` is the weight of each neighbour in a three-tap filter, `noise` a standard
    deviation in grey levels, `encoder_share` the share of images each of blur, noise and JPEG is applied
    to. Exposure follows the recipe that is known to work on the Kermany set; the zoom of each axis hides the shape of
    the film, blur, noise and JPEG hide the encoder: both tell normal from pneumonia in that set.
    """

    translation: float = 0.06
    rotation_deg: float = 5.0
    zoom: tuple[float, float] = (0.75, 1.33)
    flip: bool = True
    in_place: float = 0.25
    contrast: float = 0.25
    brightness: float = 0.12
    blur: float = 0.22
    noise: float = 6.0
    jpeg_quality: tuple[int, int] = (40, 95)
    encoder_share: float = 0.4


def draw(
    rng: np.random.Generator, count: int, size: int, strength: Augmentation = Augmentation()
) -> dict[str, np.ndarray]:
    """Random parameters for `count` images of `size` px: arrays of first dimension `count` for Augmenter."""

    def uniform(extreme: float) -> np.ndarray:
        return rng.uniform(-extreme, extreme, count).astype(np.float32)

    def sometimes(largest: float) -> np.ndarray:
        chosen = rng.random(count) < strength.encoder_share
        return (chosen * rng.uniform(0, largest, count)).astype(np.float32)

    return {
        "transforms": _transforms(rng, count, size, strength),
        "contrast": 1 + uniform(strength.contrast),
        "brightness": 255 * uniform(strength.brightness),
        "blur": sometimes(strength.blur),
        "noise": sometimes(strength.noise) * rng.choice(np.array([-1, 1], np.float32), count),
        "noise_field": rng.integers(0, NOISE_FIELDS, count).astype(np.int32),
    }


def _transforms(rng: np.random.Generator, count: int, size: int, strength: Augmentation) -> np.ndarray:
    """Projective transforms float32 [count, 8] from result to source pixels, about the image's centre."""
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
    """Applies drawn parameters to a batch with Keras operations, on any backend and device."""

    def __init__(self, size: int, seed: int = 0) -> None:
        # Drawing noise for every batch would cost more than all the rest; a few fields, scaled and with
        # either sign, move with the geometry of no image and are as good.
        fields = np.random.default_rng(seed).standard_normal((NOISE_FIELDS, size, size), dtype=np.float32)
        self._noise_fields = ops.convert_to_tensor(fields)

    def __call__(self, images: Any, drawn: dict[str, Any]) -> Any:
        """Images float32 [B, H, W], 0 to 255, of images uint8 or float32 [B, H, W]; outside is black."""
        x = ops.expand_dims(ops.cast(images, "float32"), -1)
        x = ops.image.affine_transform(x, drawn["transforms"], interpolation="bilinear", fill_mode="constant")
        x = ops.squeeze(x, -1)
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        x = (x - mean) * _per_image(drawn["contrast"]) + mean + _per_image(drawn["brightness"])
        x = _blur(x, _per_image(drawn["blur"]))
        x = x + _per_image(drawn["noise"]) * ops.take(self._noise_fields, drawn["noise_field"], axis=0)
        return ops.clip(x, 0.0, 255.0)


def _per_image(values: Any) -> Any:
    return ops.reshape(values, (-1, 1, 1))


def _blur(x: Any, weight: Any) -> Any:
    rows = ops.pad(x, ((0, 0), (1, 1), (0, 0)), mode="reflect")
    x = x * (1 - 2 * weight) + weight * (rows[:, :-2] + rows[:, 2:])
    columns = ops.pad(x, ((0, 0), (0, 0), (1, 1)), mode="reflect")
    return x * (1 - 2 * weight) + weight * (columns[:, :, :-2] + columns[:, :, 2:])


def reencode_some(
    images: np.ndarray, rng: np.random.Generator, strength: Augmentation = Augmentation()
) -> np.ndarray:
    """Images uint8 [B, H, W], some of them written as JPEG of random quality and read back."""
    images = images.copy()
    for index in np.flatnonzero(rng.random(len(images)) < strength.encoder_share):
        file = io.BytesIO()
        quality = int(rng.integers(*strength.jpeg_quality, endpoint=True))
        Image.fromarray(images[index]).save(file, "JPEG", quality=quality)
        images[index] = np.asarray(Image.open(file))
    return images
