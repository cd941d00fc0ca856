"""The image contract: bytes of any supported format to a grey uint8 square, or the reason why not."""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.imaging.contract import (
    JPEG_QUALITY,
    MIN_CONTRAST,
    Decoded,
    Source,
)
from pneumonia_core.imaging.formats import UNREAD_FORMATS, sniff_format
from pneumonia_core.imaging.pictures import check_picture, open_picture, to_grayscale

if TYPE_CHECKING:
    from pneumonia_core.imaging.dicom.header import Header


def decode(data: bytes, size: int) -> np.ndarray:
    """The image as grey uint8 [size, size], whatever came in. Raises RejectedImage.

    JPEG, PNG (8 and 16 bit, palette, alpha), BMP, TIFF, WebP, GIF, JPEG 2000, AVIF or DICOM, known by
    content. EXIF orientation is applied, the picture is stretched to the square with an antialiasing triangle
    filter and written as JPEG once.
    """
    decoded = read_image(data, size)
    if decoded.rejection is not None:
        raise RejectedImage(decoded.rejection.reason, decoded.rejection.detail)
    assert decoded.pixels is not None
    return decoded.pixels


def read_image(data: bytes, size: int, trust_chest: bool = False) -> Decoded:
    """The image as `decode` gives it, or why it cannot be decoded; either way with what is known of its
    source.

    With `trust_chest`, DICOM's modality and body part are not judged.
    """
    source = Source()
    try:
        with _any_error_as_rejection():
            source = Source(format=sniff_format(data))
            opened, source = _open(data, source)
            encoded = _encoded_square(_grayscale(opened, data, size, trust_chest), size)
            return Decoded(_checked_square(encoded, size), source, encoded=encoded)
    except RejectedImage as rejected:
        return Decoded(None, source, rejected.rejection)


def read_picture(data: bytes, size: int | None = None) -> Image.Image:
    """The image in grey, before it becomes a square. Raises RejectedImage.

    With a `size`, it is as reduced as the decoder may reduce it on the way to a square of that size.
    """
    with _any_error_as_rejection():
        opened, _ = _open(data, Source(format=sniff_format(data)))
        return _grayscale(opened, data, size)


def to_square(picture: Image.Image, size: int) -> np.ndarray:
    """A grey picture as the network sees it: stretched to uint8 [size, size] and encoded as JPEG once.

    Raises RejectedImage where it is blank.
    """
    return _checked_square(_encoded_square(picture, size), size)


def encode_square(square: Image.Image) -> bytes:
    """A grey square as JPEG of JPEG_QUALITY, as `contract` explains."""
    file = io.BytesIO()
    square.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def decode_square(jpeg: bytes, size: int) -> np.ndarray:
    """The pixels uint8 [size, size] of what `encode_square` gave. Raises ValueError for another."""
    # `Image.open` would parse in Python what is known here.
    return np.asarray(Image.frombytes("L", (size, size), jpeg, "jpeg", "L", ""))


def _encoded_square(picture: Image.Image, size: int) -> bytes:
    return encode_square(picture.resize((size, size), Image.Resampling.BILINEAR))


def _checked_square(encoded: bytes, size: int) -> np.ndarray:
    square = decode_square(encoded, size)
    contrast = int(square.max()) - int(square.min())
    if contrast < MIN_CONTRAST:
        raise RejectedImage("blank", f"all pixels within {contrast} grey levels of 255")
    return square


@contextlib.contextmanager
def _any_error_as_rejection() -> Iterator[None]:
    """Turns whatever a decoder raises into a RejectedImage, except MemoryError."""
    try:
        yield
    except (RejectedImage, MemoryError, PneumoniaError):
        # The last two say nothing about the image.
        raise
    except Exception as error:  # noqa: BLE001 - a decoder may raise anything; each becomes a row
        raise _rejection_of(error) from None


def _open(data: bytes, source: Source) -> tuple["Image.Image | Header", Source]:
    """The file with its header read and no pixel decoded, and what the header adds to `source`."""
    assert source.format is not None
    if source.format in UNREAD_FORMATS:
        raise RejectedImage("unsupported", f"{UNREAD_FORMATS[source.format]}, a format that is not read")
    if source.format == "dicom":
        # Imported on the first DICOM file: its decoders are many, and most archives have none.
        from pneumonia_core.imaging.dicom.radiograph import open_radiograph

        return open_radiograph(data)
    image = open_picture(data, source.format)
    return image, Source(source.format, *image.size, mode=image.mode)


def _grayscale(
    opened: "Image.Image | Header", data: bytes, size: int | None, trust_chest: bool = False
) -> Image.Image:
    """The whole picture in grey, which may be reduced to twice `size` on the way."""
    if isinstance(opened, Image.Image):
        check_picture(opened, data)
        return to_grayscale(opened, size)
    # As in `_open`.
    from pneumonia_core.imaging.dicom.radiograph import read_grayscale

    return Image.fromarray(read_grayscale(opened, trust_chest))


def _rejection_of(error: Exception) -> RejectedImage:
    # Only the message of Pillow's error distinguishes a short file from a broken one.
    text = str(error).lower()
    if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
        return RejectedImage("truncated", "the file ends before the picture does")
    if isinstance(error, NotImplementedError) or "unsupported" in text or "unknown" in text:
        return RejectedImage("unsupported", "a variant of the format that no decoder here reads")
    return RejectedImage("corrupt", "the picture's data contradict its format")
