"""Milliseconds of CPU that each step of a JPEG costs, from its bytes to its square, in one thread.

python tests/bench/decode_steps.py FOLDER [--size 224] [--rounds 3]

The steps are those of `read_image`, which is measured as a whole in the last line.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import click
from PIL import Image

from pneumonia_core.imaging.decode import decode_square, encode_square, read_image
from pneumonia_core.imaging.formats import sniff_format
from pneumonia_core.imaging.pictures import check_picture, open_picture, to_grayscale

Result = TypeVar("Result")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--size", default=224, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(folder: Path, size: int, rounds: int) -> None:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    images = [path.read_bytes() for path in files]
    measured = [measure(images, size) for _ in range(rounds)]
    for step in measured[0]:
        print(f"{step:12s} {median(one[step] for one in measured) * 1e3 / len(images):6.3f} ms")


def measure(images: list[bytes], size: int) -> dict[str, float]:
    """Seconds of this thread's CPU for each step over all images."""
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[..., Result], *arguments: object) -> Result:
        started = time.thread_time()
        result = work(*arguments)
        seconds[step] = seconds.get(step, 0.0) + time.thread_time() - started
        return result

    for data in images:
        kind = timed("sniff", sniff_format, data)
        picture = timed("open", open_picture, data, kind)
        timed("check", check_picture, picture, data)
        grey = timed("decode", to_grayscale, picture, size)
        square = timed("resize", grey.resize, (size, size), Image.Resampling.BILINEAR)
        jpeg = timed("encode", encode_square, square)
        timed("read back", decode_square, jpeg, size)
        timed("sha256", hashlib.sha256, data)
    for data in images:
        timed("read_image", read_image, data, size)
    return seconds


if __name__ == "__main__":
    main()
