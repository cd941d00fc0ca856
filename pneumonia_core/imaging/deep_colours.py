"""Colours and alpha of 16 bits in PNG and TIFF, of which Pillow keeps 8: grey from all of them.

Detectors store 10, 12 or 14 bits in 16. The upper 8 of those are nearly black.
"""

import io
import re
import sys
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin
from PIL.ImageFile import ImageFile, _Tile
from PIL.TiffImagePlugin import TiffImageFile

from pneumonia_core.errors import RejectedImage

# As Pillow converts colours (ITU-R BT.601).
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
_DEPTHS: Final = (8, 10, 12, 14, 16)
# This share of the values may be beyond the depth that the others show: hot pixels, burnt-in letters.
_OUTLIERS: Final = 0.001
_BLOCK_PIXELS: Final = 1 << 22
_RAW_MODE: Final = re.compile(r"(RGBA|RGBX|RGBa|RGB|LA|La|LX);16([BLN])")
_OTHER_ORDER: Final = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_BYTE_ORDER: Final = {"B": ">", "L": "<", "N": "="}
# What the second sample is by TIFF's ExtraSamples: unknown, alpha that the first has in it, or not.
_SECOND_SAMPLES: Final = {(): "LX", (0,): "LX", (1,): "La", (2,): "LA"}
_RGB: Final = 2
_SEPARATE: Final = 2
_BITS: Final = TiffImagePlugin.BITSPERSAMPLE
# For the whole process: Pillow does not know TIFF of grey and alpha with 16 bits. `_read` reads their bytes.
for _prefix, _order in ((TiffImagePlugin.II, "L"), (TiffImagePlugin.MM, "B")):
    for _extra, _name in _SECOND_SAMPLES.items():
        for _photometric in (0, 1):
            TiffImagePlugin.OPEN_INFO.setdefault(
                (_prefix, _photometric, (1,), 1, (16, 16), _extra), ("RGBA", f"{_name};16{_order}")
            )


def scale_to_8_bits(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """8-bit grey of 16-bit values: white is the largest value of the smallest usual depth that holds them.

    The few beyond it are white as well.
    """
    scale = np.float32(255 / depth_white(values))
    return np.minimum(values.astype(np.float32) * scale + 0.5, 255).astype(np.uint8)


def depth_white(values: npt.NDArray[np.integer]) -> int:
    """The largest value of the usual depth that holds all values but outliers."""
    allowed = values.size * _OUTLIERS
    bits = (bits for bits in _DEPTHS if bits == 16 or np.count_nonzero(values >= 1 << bits) <= allowed)
    return (1 << next(bits)) - 1


@dataclass(frozen=True)
class _Samples:
    """The values of a picture, uint16 [H, W, colours or more].

    Behind 1 or 3 colours may come alpha, which the colours are already multiplied by, or not.
    """

    values: npt.NDArray[np.uint16]
    colours: int
    has_alpha: bool


def deep_grey(image: Image.Image) -> Image.Image | None:
    """8-bit grey of a picture that is not loaded yet; what is transparent is black.

    None where Pillow reads the picture as it is. Raises RejectedImage, and whatever Pillow does on hostile
    bytes.
    """
    if not isinstance(image, ImageFile) or not image.tile:
        return None
    raw_mode = _raw_mode(image.tile[0])
    if (found := _RAW_MODE.fullmatch(raw_mode)) is not None:
        return Image.fromarray(_grey(_interleaved(image, found[1], found[2])))
    # Pillow takes the first letter of a raw mode for each plane, as if it had 8 bits.
    if isinstance(image, TiffImageFile) and raw_mode in ("R", "I", "L") and _tag(image, _BITS)[0] == 16:
        return Image.fromarray(_grey(_planes(image)))
    return None


def _interleaved(image: ImageFile, name: str, order: str) -> _Samples:
    colours = 3 if name.startswith("RGB") else 1
    has_alpha = name[-1] == "A"
    if colours == 1:
        pairs = np.ascontiguousarray(_loaded(image, "RGBA", "RGBA")).view(f"{_BYTE_ORDER[order]}u2")
        return _Samples(pairs.astype(np.uint16, copy=False), colours, has_alpha)
    mode = "RGB" if name in ("RGB", "RGBX") else "RGBA"
    # Not RGBa: Pillow would divide by the upper half of alpha.
    name = name.replace("a", "A")
    again = _opened_again(image)
    high = _loaded(image, mode, f"{name};16{order}")
    if _is_separate(image) and np.count_nonzero(high[..., :3] >= 64) <= high.size * _OUTLIERS:
        # Of compressed planes Pillow gives the upper halves, which say too little of so dark a picture.
        raise RejectedImage("unsupported", "16-bit colours in compressed planes")
    low = _loaded(again, mode, f"{name};16{_OTHER_ORDER[order]}")
    values = np.left_shift(high, 8, dtype=np.uint16)
    return _Samples(np.bitwise_or(values, low, dtype=np.uint16), colours, has_alpha)


def _planes(image: TiffImageFile) -> _Samples:
    """The planes of a TIFF that is not compressed, each read as grey."""
    count = min(len(_tag(image, _BITS)), len(image.tile))
    order = "B" if image.tag_v2.prefix == TiffImagePlugin.MM else ""
    per_plane = len(image.tile) // count
    again = [_opened_again(image) for _ in range(count - 1)]
    planes = []
    for number, opened in enumerate((image, *again)):
        opened.tile = opened.tile[number * per_plane : (number + 1) * per_plane]
        planes.append(_loaded(opened, f"I;16{order}", f"I;16{order}").astype(np.uint16))
    colours = 3 if _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)[0] == _RGB else 1
    has_alpha = _tag(image, TiffImagePlugin.EXTRASAMPLES)[0] == 2
    return _Samples(np.stack(planes, -1), colours, has_alpha and count > colours)


def _grey(samples: _Samples) -> npt.NDArray[np.uint8]:
    colours = samples.values[..., : samples.colours]
    scale = np.float32(255 / depth_white(colours))
    alpha = samples.values[..., samples.colours] if samples.has_alpha else None
    opaque = 1 if alpha is None else _whole_depth_white(int(alpha.max(initial=0)))
    grey = np.empty(colours.shape[:2], np.uint8)
    step = max(1, _BLOCK_PIXELS // colours.shape[1])
    for row in range(0, colours.shape[0], step):
        block = slice(row, row + step)
        values = colours[block].astype(np.float32)
        shown = (values @ _LUMA if samples.colours == 3 else values[..., 0]) * scale
        if alpha is not None:
            shown = np.minimum(shown, 255) * (alpha[block].astype(np.float32) / opaque)
        grey[block] = np.minimum(shown + 0.5, 255).astype(np.uint8)
    return grey


def _whole_depth_white(peak: int) -> int:
    return next((1 << bits) - 1 for bits in _DEPTHS if peak < 1 << bits)


def _loaded(image: ImageFile, mode: str, raw_mode: str) -> npt.NDArray[np.integer]:
    """The pixels of a picture as Pillow reads them in another mode than its own."""
    image._mode = mode
    image.tile = [tile._replace(args=_with_raw_mode(tile, raw_mode)) for tile in image.tile]
    image.load()
    return np.asarray(image)


def _raw_mode(tile: _Tile) -> str:
    mode = tile.args[0] if isinstance(tile.args, tuple) else tile.args
    return mode if isinstance(mode, str) else ""


def _with_raw_mode(tile: _Tile, raw_mode: str) -> tuple[object, ...] | str:
    return (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode


def _opened_again(image: ImageFile) -> ImageFile:
    assert isinstance(image.fp, io.BytesIO)
    again = type(image)(io.BytesIO(image.fp.getvalue()))
    if isinstance(image, TiffImageFile) and image.tell():
        again.seek(image.tell())
    return again


def _is_separate(image: ImageFile) -> bool:
    return (
        isinstance(image, TiffImageFile) and _tag(image, TiffImagePlugin.PLANAR_CONFIGURATION)[0] == _SEPARATE
    )


def _tag(image: TiffImageFile, tag: int) -> tuple[int, ...]:
    """The values of a tag, (0,) without them."""
    values = image.tag_v2.get(tag, (0,))
    return values if isinstance(values, tuple) and values else (values or 0,)
