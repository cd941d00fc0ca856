"""Synthetic chest X-rays, for the demo and for tests: drawn, never taken from a patient."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pneumonia_core.labels import BACTERIAL, CLASSES, NORMAL
from pneumonia_core.phantom_anatomy import Array, Patient, draw_patient, healthy_chest, lungs, place
from pneumonia_core.phantom_disease import disease

WORKING_SIDE: Final = 256  # the chest is drawn at this size at most and enlarged
JPEG_QUALITY: Final = 85


def phantom(label: int, patient_seed: int, image_seed: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A synthetic chest X-ray, uint8 [H, W] with `size` = (H, W), the same for the same arguments.

    `label` indexes CLASSES; `patient_seed` gives build and disease, `image_seed` position, breath, exposure
    and noise. Brightness and contrast are drawn after the drawing's own were divided out, as an automatic
    exposure does, so that they say next to nothing about the class.
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
    at = place(patient, x, y, breath=float(rng.normal(0, 0.02)))
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
    """Grey levels of the film: random brightness and contrast around the picture's own, toe and shoulder."""
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


@dataclass(frozen=True)
class PhantomArchive:
    """What `write_archive` wrote: so many files, and the reason for which each bad one must be rejected.

    `rejected` maps a path relative to `folder` to a reason of `errors.REJECT_REASONS`; every other file
    of the `files` can be scored.
    """

    folder: Path
    files: int
    rejected: dict[str, str]

    @property
    def scored(self) -> int:
        return self.files - len(self.rejected)


def write_labelled(
    folder: Path,
    patients_per_class: dict[str, int] | int,
    images_per_patient: int = 2,
    seed: int = 0,
    size: tuple[int, int] = (224, 320),
    test_fraction: float = 0.25,
) -> list[Path]:
    """The paths of a labelled data set written in the Kermany layout, `train|test / NORMAL|PNEUMONIA / file`.

    `patients_per_class` is one number or a number for each class name. About `test_fraction` of each class's
    patients, the last ones, are the test split, so that none is in both. `size` is the range of the longer
    side in pixels. Sizes, aspects and JPEG quality are drawn alike for all classes.
    """
    paths = []
    for label, name in enumerate(CLASSES):
        patients = (
            patients_per_class if isinstance(patients_per_class, int) else patients_per_class.get(name, 0)
        )
        held_back = round(patients * test_fraction)
        if patients > 1 and test_fraction > 0:
            held_back = max(held_back, 1)
        for patient in range(patients):
            split = "test" if patient >= patients - held_back else "train"
            for image in range(images_per_patient):
                path = (
                    folder
                    / split
                    / _kermany_name(label, patient, patient * images_per_patient + image, image)
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                _save_jpeg(path, _patient_picture(seed, label, patient, image, size))
                paths.append(path)
    return paths


def _kermany_name(label: int, patient: int, number: int, image: int) -> str:
    if label == NORMAL:
        return f"NORMAL/IM-{patient + 1:04d}-{image + 1:04d}.jpeg"
    kind = "bacteria" if label == BACTERIAL else "virus"
    return f"PNEUMONIA/person{patient + 1}_{kind}_{number + 1}.jpeg"


def _patient_picture(
    seed: int, label: int, patient: int, image: int, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    patient_seed = int(np.random.default_rng([23, seed, label, patient]).integers(1 << 32))
    rng = np.random.default_rng([29, seed, label, patient, image])
    longer = int(rng.integers(size[0], size[1] + 1))
    shape = (round(longer / rng.uniform(1.0, 1.4)), longer)
    return phantom(label, patient_seed, image, shape)


def _save_jpeg(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(picture).save(path, "JPEG", quality=JPEG_QUALITY)


def write_archive(
    folder: Path, count: int, seed: int = 0, broken: bool = False, size: tuple[int, int] = (224, 320)
) -> PhantomArchive:
    """An unlabelled archive of `count` files written in folders by date, half of them of ill children.

    With `broken`, five of the files cannot be scored (empty, truncated, text, black, one pixel) and three
    are unusual but good (16-bit PNG, EXIF-rotated JPEG, a name with a space, `#` and `%`); `count` must then
    be at least eight. Raises ValueError where it is less.
    """
    odd = list(_ODD_FILES.items()) if broken else []
    if count < len(odd):
        raise ValueError(f"an archive with broken files has at least {len(odd)} files, not {count}")
    rejected = {}
    for number in range(count):
        rng = np.random.default_rng([31, seed, number])
        label = int(rng.choice(len(CLASSES), p=[0.5, 0.25, 0.25]))
        picture = _patient_picture(seed + 1_000_003, label, number, 0, size)
        day = folder / f"2024-03-{1 + number * 5 // count:02d}"
        day.mkdir(parents=True, exist_ok=True)
        # The odd files are spread over the archive, so that they fall into different folders and chunks.
        place_in_odd = [i for i in range(len(odd)) if (2 * i + 1) * count // (2 * len(odd)) == number]
        if not place_in_odd:
            _save_jpeg(day / f"cxr_{number:06d}.jpeg", picture)
            continue
        name, (write, reason) = odd[place_in_odd[0]]
        write(day / name, picture)
        if reason is not None:
            rejected[f"{day.name}/{name}"] = reason
    return PhantomArchive(folder, count, rejected)


def _write_truncated(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    _save_jpeg(path, picture)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _write_16_bit(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(picture.astype(np.uint16) * 257).save(path, "PNG")


def _write_rotated(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to show upright
    Image.fromarray(np.rot90(picture)).save(path, "JPEG", quality=JPEG_QUALITY, exif=exif)


_ODD_FILES: Final[dict[str, tuple[Callable[[Path, npt.NDArray[np.uint8]], object], str | None]]] = {
    "empty.jpeg": (lambda path, _: path.write_bytes(b""), "empty"),
    "scan_16bit.png": (_write_16_bit, None),
    "truncated.jpeg": (_write_truncated, "truncated"),
    "report.jpeg": (
        lambda path, _: path.write_text("See the film in the other folder.\n" * 20),
        "not_an_image",
    ),
    "rotated.jpeg": (_write_rotated, None),
    "black.jpeg": (lambda path, picture: _save_jpeg(path, np.zeros_like(picture)), "blank"),
    "bed 7 #2 100%.jpeg": (_save_jpeg, None),
    "pixel.png": (lambda path, picture: Image.fromarray(picture[:1, :1]).save(path, "PNG"), "too_small"),
}
