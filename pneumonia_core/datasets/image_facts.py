"""What is known of one image without a model: format, size, encoding, and a hash of what it looks like."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy.fft import dctn

from pneumonia_core.archives.archive import fetched_bytes
from pneumonia_core.archives.entries import FetchedImage
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import read_image
from pneumonia_core.system.failpoints import failpoint

# Decoded at the size of most networks, so that the images rejected here are those that they would reject.
IMAGE_SIZE: Final = 224
HASH_BYTES: Final = 32
IMAGE_FACTS: Final = pa.schema(
    [
        ("sha256", pa.string()),
        ("size_bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("quantisation", pa.string()),
        ("looks", pa.binary(HASH_BYTES)),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("sharpness", pa.float64()),
        ("border", pa.float64()),
        ("reason", pa.string()),
    ]
)
_HASH_SIDE: Final = 16
_THUMBNAIL_SIDE: Final = 32
_BANDS: Final = 16
# Grey levels: JPEG leaves some traces in an even bar.
_EVEN: Final = 16
# ITU T.81, table K.1, row by row. JPEG encoders scale it by their quality.
_LUMINANCE: Final = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


@dataclass(frozen=True)
class ImageFacts:
    """The columns of IMAGE_FACTS for one image, None where unknown.

    `mode` is Pillow's (L, RGB, I;16) or DICOM's photometric interpretation. `quantisation` names a JPEG's
    luminance table: `q75` for the usual one of quality 75, else eight digits of its hash. `looks` is the
    `perceptual_hash`. `brightness` and `contrast` are mean and standard deviation of the grey levels; see
    `sharpness` and `border`. `reason` is the reject reason of an image that cannot be read or decoded.
    """

    sha256: str | None = None
    size_bytes: int | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    quantisation: str | None = None
    looks: bytes | None = None
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    border: float | None = None
    reason: str | None = None


def facts_of_image(image: FetchedImage, image_size: int = IMAGE_SIZE) -> ImageFacts:
    """The facts of an image, which is read here unless it comes with its bytes."""
    try:
        failpoint("decode", image.ref.uri)
        return facts_of_bytes(fetched_bytes(image), image_size)
    except RejectedImage as rejected:
        return ImageFacts(reason=rejected.reason)


def facts_of_bytes(data: bytes, image_size: int = IMAGE_SIZE) -> ImageFacts:
    """The facts of an image file, decoded to a square of `image_size`."""
    decoded = read_image(data, image_size)
    source, pixels = decoded.source, decoded.pixels
    return ImageFacts(
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        format=source.format,
        width=source.width,
        height=source.height,
        mode=None if pixels is None else source.mode or "unknown",
        quantisation=_quantisation(data) if pixels is not None and source.format == "jpeg" else None,
        looks=None if pixels is None else perceptual_hash(pixels),
        brightness=None if pixels is None else float(pixels.mean()),
        contrast=None if pixels is None else float(pixels.std()),
        sharpness=None if pixels is None else sharpness(pixels),
        border=None if pixels is None else border(pixels),
        reason=None if decoded.rejection is None else decoded.rejection.reason,
    )


def perceptual_hash(pixels: np.ndarray) -> bytes:
    """255 bits of uint8 [S, S] that hardly change when it is re-encoded, resized, brightened or blurred.

    The picture is reduced to 32 × 32. Each bit tells whether one of its lowest 16 × 16 frequencies, except
    the mean, is above their median. This is the DCT hash of Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010, with 255 bits instead of 64: chest X-rays are so alike that 64 bits
    mistake different children for one.
    """
    side = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    thumbnail = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BOX), np.float64)
    frequencies = dctn(thumbnail, norm="ortho")[:_HASH_SIDE, :_HASH_SIDE].ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    # Near duplicates are looked up by sixteen bands of bits: each gets low and high frequencies.
    return np.packbits(bits.reshape(-1, _BANDS).T).tobytes()


def sharpness(pixels: np.ndarray) -> float:
    """The standard deviation of the Laplacian of uint8 [S, S], as a share of that of the grey levels.

    It is large for sharp and grainy pictures. (The variance of the Laplacian measures focus: Pech-Pacheco et
    al., ICPR 2000.)
    """
    x = pixels.astype(np.float64)
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
    return float(laplacian.std() / max(x.std(), 1.0))


def border(pixels: np.ndarray) -> float:
    """The share of uint8 [S, S] in even rows, then even columns, at its edges: bars beside the film."""
    rows = _film(pixels)
    return float(1 - len(rows) * len(_film(rows.T)) / pixels.size)


def _film(pixels: np.ndarray) -> np.ndarray:
    """The rows from the first to the last one that is not even."""
    found = np.flatnonzero(np.ptp(pixels, axis=1) > _EVEN) if pixels.size else np.zeros(0, int)
    return pixels[found[0] : found[-1] + 1] if len(found) else pixels[:0]


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
