"""The image contract: its constants and limits, and what decoding gives."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from pneumonia_core.errors import RejectedImage, Rejection

# Raised with every change of what decoding makes of some bytes: squares that were cached under another number
# are not taken.
PREPARATION: Final = 1
GEOMETRY: Final = "stretch"
FILTER: Final = "triangle"
# Quality of the JPEG that every square is encoded with. The usual training data are JPEGs; without this, a
# network recognises other files by their finer grain (the scores of originals moved by up to 0.19, now by
# 0.03).
JPEG_QUALITY: Final = 75
# Weight of each neighbour in the filter that smooths the square in an exported network. Augmentation
# resamples, and so smooths, three of four training images: without the filter, an image as read is sharper
# than those. With it, originals encoded as JPEG of quality 50 move half as far (the 99th percentile of the
# change of p is 0.055 instead of 0.131). On images held out, AUROC of pneumonia stays the same, of bacterial
# or viral it moves by at most 0.007.
SMOOTHING: Final = 0.25
MAX_PIXELS: Final = 100_000_000
MIN_SIDE: Final = 32
# A picture whose darkest and brightest pixel differ by less shows nothing: JPEG adds ±2 to a flat picture.
MIN_CONTRAST: Final = 6
# Each scan of a progressive JPEG costs a pass over all its coefficients; real encoders write about ten.
MAX_SCAN_PIXELS: Final = 3_000_000_000


@dataclass(frozen=True)
class Source:
    """What is known of the source file of an image; None where unknown.

    `width` and `height` are the stored ones, in pixels. `mode` is Pillow's (L, RGB, I;16) or, of DICOM, the
    photometric interpretation. DICOM alone has a `study_key`, the keyed hash of its identifier, and the
    patient's age and sex (M, F or O). `sha256` and `size_bytes` are those of the file's bytes; whoever read
    the file fills them in.
    """

    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    study_key: str | None = None
    age_years: float | None = None
    sex: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Decoded:
    """An image after decoding: its `pixels` uint8 [S, S], or the `rejection` that says why it has none.

    `encoded` is the JPEG that the pixels were read from, None where it is of no use any more.
    """

    pixels: np.ndarray | None
    source: Source = Source()
    rejection: Rejection | None = None
    encoded: bytes | None = None

    @classmethod
    def rejected(cls, reason: str, detail: str, source: Source = Source()) -> Self:
        return cls(None, source, Rejection(reason, detail))


def check_size(width: int, height: int) -> None:
    """Raise RejectedImage where a picture has too many pixels to decode, or too few to show a chest."""
    if width * height > MAX_PIXELS:
        raise RejectedImage("too_many_pixels", f"{width} x {height} pixels, the limit is {MAX_PIXELS}")
    if min(width, height) < MIN_SIDE:
        raise RejectedImage("too_small", f"{width} x {height} pixels, each side needs {MIN_SIDE} or more")
