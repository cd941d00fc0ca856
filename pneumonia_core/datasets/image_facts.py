"""What can be said of one image without a model: its format, size, encoding, and a hash of what it looks like."""

import hashlib
import io
import warnings
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.fft import dctn

from pneumonia_core.imaging.decode import read_image
from pneumonia_core.system.child_process import serve

TIME_LIMIT_S: Final = 30
# Read as most networks read it, so that what is rejected is what they would reject.
IMAGE_SIZE: Final = 224
HASH_BYTES: Final = 32
IMAGE_FACTS_SCHEMA: Final = pa.schema(
    [
        ("sha256", pa.string()),
        ("size_bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("quantisation", pa.string()),
        ("looks", pa.binary(HASH_BYTES)),
        ("reason", pa.string()),
    ]
)
_HASH_SIDE: Final = 16
_THUMBNAIL_SIDE: Final = 32
_BANDS: Final = 16
# ITU T.81, table K.1, row by row: what JPEG encoders scale by their quality.
_LUMINANCE: Final = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def survey_image(data: bytes) -> dict[str, Any]:
    """The facts of FACTS_SCHEMA about an image's bytes, None where unknown.

    `mode` is Pillow's (L, RGB, I;16) or DICOM's photometric interpretation; `quantisation` names a JPEG's
    luminance table (`q75` for the usual one of quality 75, else eight digits of its hash); `looks` is
    `perceptual_hash`; `reason` says why the image could not be decoded.
    """
    facts: dict[str, Any] = dict.fromkeys(IMAGE_FACTS_SCHEMA.names)
    facts.update(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    decoded = read_image(data, IMAGE_SIZE)
    source = decoded.source
    facts.update(format=source.format, width=source.width, height=source.height)
    if decoded.rejection is not None:
        facts["reason"] = decoded.rejection.reason
    else:
        assert decoded.pixels is not None
        facts.update(looks=perceptual_hash(decoded.pixels), mode=source.mode or "unknown")
        facts["quantisation"] = _quantisation(data) if source.format == "jpeg" else None
    return facts


def perceptual_hash(pixels: np.ndarray) -> bytes:
    """255 bits of uint8 [S, S] that hardly change when a picture is encoded anew, resized, brightened or blurred:
    whether each of the lowest 16 × 16 frequencies but the mean is above their median, of a picture of 32 × 32.

    (The DCT hash of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, with 255
    bits for its 64: chest X-rays are so alike that 64 bits mistake different children for one.)
    """
    side = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    thumbnail = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BOX), np.float64)
    frequencies = dctn(thumbnail, norm="ortho")[:_HASH_SIDE, :_HASH_SIDE].ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    # Each of the sixteen bands by which near duplicates are looked up gets low and high frequencies.
    return np.packbits(bits.reshape(-1, _BANDS).T).tobytes()


def _quantisation(data: bytes) -> str | None:
    """The luminance table of a JPEG that has been decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=("JPEG",))
    tables = getattr(image, "quantization", None)
    return _table_name(tuple(tables[min(tables)])) if tables else None


def _table_name(table: tuple[int, ...]) -> str:
    quality = _usual_tables().get(table)
    if quality is not None:
        return f"q{quality}"
    return hashlib.sha256(repr(table).encode()).hexdigest()[:8]


@cache
def _usual_tables() -> dict[tuple[int, ...], int]:
    """The luminance tables of libjpeg's qualities (jcparam.c, jpeg_quality_scaling)."""
    tables: dict[tuple[int, ...], int] = {}
    for quality in range(1, 101):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        scaled = tuple(min(255, max(1, (entry * scale + 50) // 100)) for entry in _LUMINANCE)
        tables.setdefault(scaled, quality)
    return tables


if __name__ == "__main__":
    serve(survey_image, TIME_LIMIT_S)
