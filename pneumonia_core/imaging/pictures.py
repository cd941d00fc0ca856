"""Pictures other than DICOM: opened with no pixel decoded, and their grey."""

import io
import warnings
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.contract import MAX_SCAN_PIXELS, check_size
from pneumonia_core.imaging.deep_colours import deep_grey, scale_to_8_bits
from pneumonia_core.imaging.jpeg_frame import bits_per_sample, count_scans, without_applications
from pneumonia_core.imaging.png_chunks import without_clutter
from pneumonia_core.imaging.tiff_pages import select_page

# TIFF's PhotometricInterpretation of a negative.
_WHITE_IS_ZERO: Final = 0
_PHOTOMETRIC: Final = 262
# Pillow's names of the formats that it is allowed to look for.
_FORMATS: Final = {
    "bmp": "BMP",
    "tiff": "TIFF",
    "webp": "WEBP",
    "gif": "GIF",
    "jpeg2000": "JPEG2000",
    "avif": "AVIF",
}
# Headers whose number has its bytes in the wrong order, and the right ones.
_TIFF_HEADERS: Final = {b"II\x00*": b"II*\x00", b"MM*\x00": b"MM\x00*"}
# What makes a picture of each EXIF orientation upright. Any other value says nothing.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# For the whole process: `check_size` refuses a picture by its header, before any pixel is decoded. Pillow's
# own limit is lower (89 megapixels) and would warn of pictures that are allowed.
Image.MAX_IMAGE_PIXELS = None


def open_picture(data: bytes, kind: str) -> Image.Image:
    """A picture with its header read; of a file with a preview beside it, the picture itself.

    Raises RejectedImage where it has several frames, and whatever Pillow does on hostile bytes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "jpeg":
            return _open_jpeg(data)
        if kind == "png":
            return PngImageFile(io.BytesIO(without_clutter(data)))
        # libtiff does not read what begins so, Pillow alone does.
        if (header := _TIFF_HEADERS.get(data[:4])) is not None:
            data = header + data[4:]
        image = Image.open(io.BytesIO(data), formats=(_FORMATS[kind],))
        return _picture_of_tiff(image, data) if isinstance(image, TiffImageFile) else image


def _open_jpeg(data: bytes) -> Image.Image:
    """A JPEG. Pictures that follow it in the file are previews, gain maps or depth maps."""
    try:
        image = JpegImageFile(io.BytesIO(data))
    except Exception:  # noqa: BLE001 - whatever it is, it may lie in what programs have added
        bits = bits_per_sample(data)
        if bits not in (None, 8):
            raise RejectedImage("unsupported", f"JPEG of {bits} bits for each sample") from None
        image = JpegImageFile(io.BytesIO(without_applications(data)))
    # The decoder gets the bytes as they lie in memory. Pillow would copy them for it, 64 KiB at a time.
    image.decodermaxblock = len(data)
    return image


def _picture_of_tiff(image: TiffImageFile, data: bytes) -> Image.Image:
    try:
        select_page(image)
    except (RejectedImage, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - a broken directory behind the first hides nothing of it
        return TiffImageFile(io.BytesIO(data))
    return image


def check_picture(image: Image.Image, data: bytes) -> None:
    """Raise RejectedImage where the header describes a picture beyond the limits, or several."""
    width, height = image.size
    check_size(width, height)
    if image.format != "TIFF" and getattr(image, "is_animated", False):
        raise RejectedImage("multi_frame", "several frames, one radiograph has one")
    scans = count_scans(data) if image.format == "JPEG" else 1
    if scans * width * height > MAX_SCAN_PIXELS:
        raise RejectedImage("too_slow", f"{scans} scans of {width} x {height} pixels")


def to_grayscale(image: Image.Image, size: int | None) -> Image.Image:
    """The upright picture in grey, which may be reduced to twice `size` on the way."""
    if image.format == "JPEG" and size is not None:
        # The decoder scales by powers of two and skips the colour planes: 3.5 ms instead of 8.4.
        image.draft("L", (2 * size, 2 * size))
    # Pillow inverts such pictures of 8 bits by itself, but not those of 16.
    negative = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deep = deep_grey(image)
        image.load()
    # Read after the pixels: a PNG may have it behind them.
    orientation = _orientation(image)
    if deep is not None:
        image = ImageOps.invert(deep) if negative else deep
    if orientation is not None:
        image = image.transpose(orientation)
    if image.mode.startswith("I;16") or image.mode == "I":
        scaled = _scale_16_bit(image)
        return ImageOps.invert(scaled) if negative else scaled
    if image.mode == "F":
        raise RejectedImage("unsupported", "floating-point pixels have no known black and white")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    # Converting a grey picture to grey would copy it.
    return image if image.mode == "L" else image.convert("L")


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright; None where it is, or where its EXIF cannot be read."""
    if image.format == "TIFF":
        # Pillow turns it by itself.
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - EXIF that some program has blanked or broken raises anything
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _scale_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise RejectedImage("unsupported", "32-bit pixels have no known black and white")
    return Image.fromarray(scale_to_8_bits(values))
