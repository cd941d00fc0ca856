"""Data sets of synthetic X-rays: labelled ones, and archives with broken and unusual files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from pneumonia_core.findings import BACTERIAL, CLASSES, NORMAL
from pneumonia_core.phantoms.radiograph import phantom

JPEG_QUALITY: Final = 85


@dataclass(frozen=True)
class PhantomArchive:
    """An archive that `write_archive` wrote: the number of its `files`, and the expected rejections.

    `rejected` maps a path relative to `folder` to a reason of `errors.REJECT_REASONS`. All other files can be
    scored.
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
    """Write a labelled data set in the Kermany layout, `train|test / NORMAL|PNEUMONIA / file`, and give its
    paths.

    `patients_per_class` is one number or a number for each class name. The last patients of each class, about
    `test_fraction` of them, are the test split, so that no patient is in both splits. `size` is the range of
    the longer side in pixels. All classes have the same distribution of sizes, aspects and JPEG quality.
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
                    folder / split / kermany_name(label, patient, patient * images_per_patient + image, image)
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                _save_jpeg(path, _patient_picture(seed, label, patient, image, size))
                paths.append(path)
    return paths


def kermany_name(label: int, patient: int, number: int, image: int) -> str:
    """The path of an image below its split, by the patient, file and image numbers, from 0 on."""
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
    """Write an unlabelled archive of `count` files in folders by date; half of them show pneumonia.

    With `broken`, five of the files cannot be scored (empty, truncated, text, black, one pixel), and three
    are unusual but good (16-bit PNG, EXIF-rotated JPEG, a name with a space, `#` and `%`). `count` must then
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
        # The odd files are spread over the archive, so that they are in different folders and chunks.
        position = [i for i in range(len(odd)) if (2 * i + 1) * count // (2 * len(odd)) == number]
        if not position:
            _save_jpeg(day / f"cxr_{number:06d}.jpeg", picture)
            continue
        name, (write, reason) = odd[position[0]]
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
