"""Many synthetic X-rays of the size of originals, made fast: to measure with, not to learn from."""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from pneumonia_core.findings import CLASSES
from pneumonia_core.phantoms.data_sets import JPEG_QUALITY
from pneumonia_core.phantoms.radiograph import phantom

# So many are drawn, which takes a tenth of a second each; others are these, shifted.
DRAWN: Final = 8
# Height and width of most originals of the usual data set, in pixels.
SIZE: Final = (960, 1320)


def jpeg_variants(size: tuple[int, int] = SIZE) -> Callable[[int], bytes]:
    """A function that gives JPEG number n, with `size` = (H, W) pixels; any thread may call it.

    No two have the same bytes or pixels, up to DRAWN times the width of a picture.
    """
    drawn = [phantom(number % len(CLASSES), number, 0, size) for number in range(DRAWN)]

    def jpeg(number: int) -> bytes:
        shift, which = divmod(number, DRAWN)
        file = io.BytesIO()
        Image.fromarray(np.roll(drawn[which], shift, axis=1)).save(file, "JPEG", quality=JPEG_QUALITY)
        return file.getvalue()

    return jpeg
