"""A synthetic chest X-ray: the attenuations of a chest exposed, developed and marked as a film."""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pneumonia_core.phantoms.anatomy import Array, Patient, draw_patient, healthy_chest, locate, lungs
from pneumonia_core.phantoms.disease import disease

WORKING_SIDE: Final = 256  # the chest is drawn at this size at most and enlarged


def phantom(label: int, patient_seed: int, image_seed: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A synthetic chest X-ray, uint8 [H, W] with `size` = (H, W), the same for the same arguments.

    `label` indexes CLASSES; `patient_seed` determines build and disease, `image_seed` position, breath,
    exposure and noise. Like an automatic exposure, it first normalises brightness and contrast and then draws
    new ones, so that they say next to nothing about the class.
    """
    rng = np.random.default_rng([19, patient_seed, image_seed])
    patient = draw_patient(patient_seed)
    film = _expose(_attenuation(label, patient, patient_seed, rng, size), rng)
    picture = _develop(film, rng, size)
    return _mark(picture, rng)


def _attenuation(
    label: int, patient: Patient, patient_seed: int, rng: np.random.Generator, size: tuple[int, int]
) -> Array:
    x, y = _view(rng, size)
    at = locate(patient, x, y, breath=float(rng.normal(0, 0.02)))
    air = lungs(patient, at)
    ill = disease(label, patient_seed, float(rng.uniform(0.8, 1.1)), at, air)
    return healthy_chest(patient, at, air) + ill


def _view(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Array, Array]:
    """Anatomical coordinates of each pixel of the working picture, by position and rotation of the child."""
    height, width = size
    scale = min(max(2 * max(size), 128), WORKING_SIDE) / max(size)
    rows, columns = max(round(height * scale), 8), max(round(width * scale), 8)
    half_height = rng.uniform(0.74, 0.92)
    half_width = half_height * min(max(width / height, 0.9), 1.35)
    v, u = np.meshgrid(
        np.linspace(-half_height, half_height, rows, dtype=np.float32),
        np.linspace(-half_width, half_width, columns, dtype=np.float32),
        indexing="ij",
    )
    turn = np.float32(rng.normal(0, 0.045))
    dx, dy = np.float32(rng.normal(0, 0.04)), np.float32(rng.normal(-0.06, 0.04))
    x = u * np.cos(turn) - v * np.sin(turn) + dx
    y = u * np.sin(turn) + v * np.cos(turn) + dy
    oblique = np.float32(rng.normal(0, 0.03))
    return x + oblique * (1 - x * x), y


def _expose(attenuation: Array, rng: np.random.Generator) -> Array:
    """Grey levels of the film, with random brightness and contrast, and a toe and a shoulder."""
    attenuation = np.maximum(attenuation, 0)
    z = (attenuation - attenuation.mean()) / attenuation.std()
    z = np.tanh(z * rng.uniform(0.45, 0.75))
    z = (z - z.mean()) / z.std()
    return np.float32(rng.uniform(95, 150)) + np.float32(rng.uniform(42, 62)) * z


def _develop(film: Array, rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """The film at its final size [H, W], with grain."""
    height, width = size
    if film.shape != size:
        resized = Image.fromarray(film).resize((width, height), Image.Resampling.BICUBIC)
        film = np.asarray(resized, dtype=np.float32)
    grain = np.float32(np.exp(rng.uniform(np.log(1.0), np.log(5.0))))
    return film + grain * rng.standard_normal(size, dtype=np.float32)


def _mark(picture: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The picture as uint8, most often with the technician's side marker."""
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    if rng.random() < 0.8:
        height, width = picture.shape
        spot = (width * rng.uniform(0.02, 0.10), height * rng.uniform(0.02, 0.25))
        font = _font(max(round(height * rng.uniform(0.045, 0.07)), 8))
        ImageDraw.Draw(image).text(spot, "R", fill=int(rng.integers(215, 256)), font=font)
    return np.asarray(image)


@lru_cache(maxsize=64)
def _font(height: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(height)
