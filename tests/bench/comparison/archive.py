"""An archive of any number of original-size JPEGs, every one different from all others."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

from PIL import Image

# Brightness of a copy. Each step is more than what re-encoding changes, and far from black and white.
_GAINS: Final = 10
_GAIN_STEP: Final = 0.02
_SHIFT_STEP: Final = 2


def write_archive(source: Path, folder: Path, count: int) -> Path:
    """A flat folder of `count` JPEGs that all differ in bytes and in pixels.

    They are the JPEGs under `source`, then copies of them with another brightness, at the same size and with
    the quantisation of the original. Neither a cache nor a compressing file system saves any work on them.
    """
    folder.mkdir(parents=True)
    originals = distinct_jpegs(source)
    for number in range(count):
        copy, original = divmod(number, len(originals))
        write_copy(originals[original], folder / f"{number:06d}.jpeg", copy)
    return folder


def write_part(archive: Path, folder: Path, count: int) -> Path:
    """A folder of `count` images of an archive, evenly spread over it, without copying them."""
    folder.mkdir(parents=True)
    images = sorted(archive.iterdir())
    for number in range(count):
        image = images[number * len(images) // count]
        os.link(image, folder / image.name)
    return folder


def write_copy(original: Path, target: Path, copy: int) -> None:
    """Copy number `copy` of a JPEG; number 0 is the file itself."""
    if copy == 0:
        shutil.copyfile(original, target)
        return
    gain, shift = 1 - _GAIN_STEP * (copy % _GAINS), _SHIFT_STEP * (copy // _GAINS)
    with Image.open(original) as image:
        # RGB has one table for each band, and `point` takes one of them.
        levels = [round(level * gain) + shift for level in range(256)] * len(image.getbands())
        changed = image.point(levels)
        changed.save(
            target, "JPEG", qtables=image.quantization, progressive=bool(image.info.get("progressive"))
        )


def distinct_jpegs(source: Path) -> list[Path]:
    """The JPEGs under a folder, one of those with the same bytes."""
    found: dict[bytes, Path] = {}
    for file in sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg")):
        found.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
    if not found:
        raise SystemExit(f"{source} holds no JPEG file: give a folder of original-size images.")
    return list(found.values())
