"""The image contract: bytes of any supported format to a grey uint8 square, or the reason why not."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import ExifTags, Image, ImageOps

from pneumonia_core.errors import PneumoniaError, RejectedImage
from pneumonia_core.imaging.contract import (
    JPEG_QUALITY,
    MAX_SCAN_PIXELS,
    MIN_CONTRAST,
    Decoded,
    Source,
    check_size,
)
from pneumonia_core.imaging.formats import sniff_format

if TYPE_CHECKING:
    from pneumonia_core.imaging.dicom.header import Header

# TIFF's PhotometricInterpretation of a negative.
_WHITE_IS_ZERO: Final = 0
# For the whole process: `check_size` refuses a picture by its header, before any pixel is decoded. Pillow's
# own limit is lower (89 megapixels) and would warn of pictures that are allowed.
Image.MAX_IMAGE_PIXELS = None


def decode(data: bytes, size: int) -> np.ndarray:
    """The image as grey uint8 [size, size], whatever came in. Raises RejectedImage.

    JPEG, PNG (8 and 16 bit, palette, alpha), BMP, TIFF or DICOM, known by content. EXIF orientation is
    applied, the picture is stretched to the square with an antialiasing triangle filter and written as JPEG
    once.
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
            return Decoded(to_square(_grayscale(opened, data, size, trust_chest), size), source)
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
    square = through_jpeg(picture.resize((size, size), Image.Resampling.BILINEAR))
    contrast = int(square.max()) - int(square.min())
    if contrast < MIN_CONTRAST:
        raise RejectedImage("blank", f"all pixels within {contrast} grey levels of 255")
    return square


def through_jpeg(square: Image.Image) -> np.ndarray:
    """A grey picture as uint8 [S, S] after JPEG of JPEG_QUALITY, as `contract` explains."""
    file = io.BytesIO()
    square.save(file, "JPEG", quality=JPEG_QUALITY)
    # `Image.open` would parse in Python what is known here.
    return np.asarray(Image.frombytes("L", square.size, file.getvalue(), "jpeg", "L", ""))


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
    if source.format == "dicom":
        # Imported on the first DICOM file: its decoders are many, and most archives have none.
        from pneumonia_core.imaging.dicom.radiograph import open_radiograph

        return open_radiograph(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "BMP", "TIFF"))
    return image, Source(source.format, *image.size, mode=image.mode)


def _grayscale(
    opened: "Image.Image | Header", data: bytes, size: int | None, trust_chest: bool = False
) -> Image.Image:
    """The whole picture in grey, which may be reduced to twice `size` on the way."""
    if isinstance(opened, Image.Image):
        _check_header(opened, data)
        return _to_grayscale(opened, size)
    # As in `_open`.
    from pneumonia_core.imaging.dicom.radiograph import read_grayscale

    return Image.fromarray(read_grayscale(opened, trust_chest))


def _check_header(image: Image.Image, data: bytes) -> None:
    width, height = image.size
    check_size(width, height)
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise RejectedImage("multi_frame", f"{frames} frames, one radiograph has one")
    scans = data.count(b"\xff\xda") if image.format == "JPEG" else 1
    if scans * width * height > MAX_SCAN_PIXELS:
        raise RejectedImage("too_slow", f"{scans} scans of {width} x {height} pixels")


def _to_grayscale(image: Image.Image, size: int | None) -> Image.Image:
    if image.format == "JPEG" and size is not None:
        # The decoder scales by powers of two and skips the colour planes: 3.5 ms instead of 8.4.
        image.draft("L", (2 * size, 2 * size))
    exif = image.getexif()
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    # Pillow inverts such pictures of 8 bits by itself, but not those of 16.
    negative = image.format == "TIFF" and exif.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()
    if orientation != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        scaled = _scale_16_bit(image)
        return ImageOps.invert(scaled) if negative else scaled
    if image.mode == "F":
        raise RejectedImage("unsupported", "floating-point pixels have no known black and white")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return image.convert("L")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    """8-bit grey of a 16-bit picture: white is the largest value of the smallest usual depth that holds it.

    Detectors store 10, 12 or 14 bits in 16-bit files; dividing by 256 would leave those nearly black.
    """
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise RejectedImage("unsupported", "32-bit pixels have no known black and white")
    peak = int(values.max(initial=0))
    white = next((1 << bits) - 1 for bits in (8, 10, 12, 14, 16) if peak < 1 << bits)
    return Image.fromarray((values.astype(np.float32) * (255 / white) + 0.5).astype(np.uint8))


def _rejection_of(error: Exception) -> RejectedImage:
    # Only the message of Pillow's error distinguishes a short file from a broken one.
    text = str(error).lower()
    if "truncated" in text or "unexpected end" in text or isinstance(error, EOFError):
        return RejectedImage("truncated", "the file ends before the picture does")
    if isinstance(error, NotImplementedError) or "unsupported" in text or "unknown" in text:
        return RejectedImage("unsupported", "a variant of the format that no decoder here reads")
    return RejectedImage("corrupt", "the picture's data contradict its format")
