"""From stored DICOM values to grey levels: modality, padding, VOI and inversion, in the order of PS3.4 N.2.

Functions have the names of `pydicom.pixels.processing`. Stored values have at most 16 bits, so each step
works on a table of all possible values, never on the pixels.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.imaging.dicom import tags
from pneumonia_core.imaging.dicom.header import Header
from pneumonia_core.imaging.dicom.pixels import Layout

Levels = npt.NDArray[np.float64]
PERCENTILES: Final = (0.005, 0.995)
# A look that leaves less than this share of the pixels between black and white, or all of them within this
# share of the grey levels, says nothing of the picture. Windows of real files leave 0.9 or more between, one
# of an 8-bit copy about 0.1 of a picture of 10 bits.
_LEAST_BETWEEN: Final = 0.3
_LEAST_RANGE: Final = 0.1
_BLACK_OR_WHITE: Final = 0.02
# Stored values closer together than this share of all possible ones, or than so many, are a blank picture.
_LEAST_SPREAD: Final = 0.01
_LEAST_LEVELS: Final = 24
_LUMA: Final = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BLOCK_PIXELS: Final = 1 << 22


@dataclass(frozen=True)
class _Lut:
    """A look-up table. Values below `first` map to its first entry, those beyond the end to its last."""

    first: int
    values: Levels
    full_scale: float

    def __call__(self, values: Levels) -> Levels:
        index = np.clip(np.rint(values) - self.first, 0, len(self.values) - 1)
        return self.values[index.astype(np.int64)]


def to_grayscale(stored: np.ndarray, header: Header, layout: Layout) -> npt.NDArray[np.uint8]:
    """Grey uint8 [H, W], 0 is black, of stored values [H, W] or of RGB [H, W, 3]."""
    if stored.ndim == 3:
        return _luma(stored, layout)
    stored = np.ascontiguousarray(stored, stored.dtype.newbyteorder("="))
    patterns = stored.view(f"u{stored.dtype.itemsize}")
    # Every value that a pixel can have, at the index of its bit pattern.
    possible = np.arange(1 << 8 * patterns.itemsize, dtype=patterns.dtype).view(stored.dtype)
    padding = padding_mask(possible, header, layout)
    if layout.photometric == "PALETTE COLOR":
        gray = apply_color_lut(possible.astype(float), header)
    else:
        counts = np.where(padding, 0, _histogram(patterns, possible.size))
        modality = apply_modality_lut(possible.astype(float), header, layout)
        gray = apply_voi_lut(modality, counts, header, layout)
        if _says_nothing(gray, modality, counts) and _shows_something(possible.astype(float), counts, layout):
            gray = stretch_percentiles(modality, counts)
        # INVERSE is how MONOCHROME1 is shown (PS3.3 C.8.11.3.1.2): both together invert once.
        if layout.photometric == "MONOCHROME1" or header.text(tags.PRESENTATION_LUT_SHAPE) == "INVERSE":
            gray = 1 - gray
    # No X-ray fell on padding: it is the background of the picture, black.
    table = np.where(padding, 0, np.rint(255 * np.clip(gray, 0, 1))).astype(np.uint8)
    return _looked_up(table, patterns)


def padding_mask(possible: np.ndarray, header: Header, layout: Layout) -> npt.NDArray[np.bool_]:
    """Which values are padding:

    Pixel Padding Value, or all from it to Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2).
    """
    kind = "SS" if layout.signed else "US"
    ends = [header.number(tag, kind) for tag in (tags.PADDING_VALUE, tags.PADDING_LIMIT)]
    # A negative value is often stored as unsigned, so its bits are compared.
    mask = (1 << 8 * possible.itemsize) - 1
    bits = [np.array(int(end) & mask, f"u{possible.itemsize}") for end in ends if end is not None]
    limits = [int(pattern.view(possible.dtype)) for pattern in bits]
    if ends[0] is None:
        return np.zeros(possible.size, bool)
    return (possible >= min(limits)) & (possible <= max(limits))


def apply_modality_lut(values: Levels, header: Header, layout: Layout) -> Levels:
    """Stored values as values of the modality: by Modality LUT, else by rescale slope and intercept (PS3.3
    C.11.1)."""
    lut = _sequence_lut(header, tags.MODALITY_LUT, layout.signed)
    if lut is not None:
        return lut(values)
    slope, intercept = header.number(tags.RESCALE_SLOPE, "DS"), header.number(tags.RESCALE_INTERCEPT, "DS")
    return values * (slope or 1.0) + (intercept or 0.0)


def apply_voi_lut(values: Levels, counts: np.ndarray, header: Header, layout: Layout) -> Levels:
    """Values of the modality as 0 (black) to 1 (white): by VOI LUT, else by window, else by percentiles.

    `counts` says how many pixels have each value.
    """
    shown = apply_voi(values, header, layout)
    if shown is None:
        shown = apply_windowing(values, header)
    return stretch_percentiles(values, counts) if shown is None else shown


def apply_voi(values: Levels, header: Header, layout: Layout) -> Levels | None:
    """0 to 1 by the first VOI LUT (PS3.3 C.11.2.1.1); None without one."""
    lut = _sequence_lut(header, tags.VOI_LUT, _may_be_negative(header, layout))
    if lut is None:
        return None
    # Some declare 16 bits and have entries of 12: white is the depth that the largest has.
    white = (1 << int(lut.values.max()).bit_length()) - 1
    return lut(values) / max(white, 1)


def _may_be_negative(header: Header, layout: Layout) -> bool:
    """Whether a stored value can become negative, so that a VOI LUT may begin below 0 (PS3.3 C.11.2.1.1)."""
    least = -(1 << (layout.bits_stored - 1)) if layout.signed else 0
    ends = np.array([least, least + (1 << layout.bits_stored) - 1], float)
    return bool(apply_modality_lut(ends, header, layout).min() < 0)


def apply_windowing(values: Levels, header: Header) -> Levels | None:
    """0 to 1 by the first window and its VOI LUT Function (PS3.3 C.11.2.1.2 and C.11.2.1.3); None without a
    valid one."""
    center, width = header.number(tags.WINDOW_CENTER, "DS"), header.number(tags.WINDOW_WIDTH, "DS")
    function = header.text(tags.VOI_FUNCTION) or "LINEAR"
    if center is None or width is None or width <= 0:
        return None
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width < 1:
        return None
    if width == 1:
        return (values > center - 0.5).astype(float)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _says_nothing(gray: Levels, values: Levels, counts: np.ndarray) -> bool:
    """Whether nearly all of the picture is white or black: 0 to 1 of each value, of which it has so many."""
    present = counts > 0
    if not present.any():
        return False
    low, high = _percentiles(gray, counts)
    if high - low < _LEAST_RANGE:
        return True
    # Collimated borders and burnt-in letters have the least and the greatest value.
    inner = np.where((values > values[present].min()) & (values < values[present].max()), counts, 0)
    between = inner[(gray > _BLACK_OR_WHITE) & (gray < 1 - _BLACK_OR_WHITE)].sum()
    return bool(between < _LEAST_BETWEEN * inner.sum())


def _shows_something(stored: Levels, counts: np.ndarray, layout: Layout) -> bool:
    low, high = _percentiles(stored, counts)
    return high - low >= max(_LEAST_SPREAD * (1 << layout.bits_stored), _LEAST_LEVELS)


def stretch_percentiles(values: Levels, counts: np.ndarray) -> Levels:
    """0 to 1 between the PERCENTILES of the pixels' values; all 0 where these are equal."""
    low, high = _percentiles(values, counts)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.size)


def _percentiles(values: Levels, counts: np.ndarray) -> tuple[float, float]:
    """The PERCENTILES of values of which the picture has so many; 0 and 0 of none."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    if below[-1] == 0:
        return 0.0, 0.0
    low, high = (float(values[order[np.searchsorted(below, share * below[-1])]]) for share in PERCENTILES)
    return low, high


def apply_color_lut(values: Levels, header: Header) -> Levels:
    """Grey 0 to 1 of indices into the red, green and blue palettes (PS3.3 C.7.6.3.1.5 and C.7.6.3.1.6)."""
    gray = np.zeros(values.size)
    for weight, descriptor, data in zip(_LUMA, tags.PALETTE_DESCRIPTORS, tags.PALETTE_DATA, strict=True):
        lut = _lut(header, descriptor, data, signed=False)
        if lut is None:
            raise NotImplementedError
        gray += weight * lut(values) / lut.full_scale
    return gray


def _sequence_lut(header: Header, tag: int, signed: bool) -> _Lut | None:
    item = header.first_item(tag)
    return _lut(item, tags.LUT_DESCRIPTOR, tags.LUT_DATA, signed) if item is not None else None


def _lut(header: Header, descriptor_tag: int, data_tag: int, signed: bool) -> _Lut | None:
    """A look-up table by its descriptor: entries (0 is 65536), first value, bits (PS3.3 C.11.1.1.1)."""
    descriptor = header.numbers(descriptor_tag, "SS" if signed else "US")
    data = header.raw(data_tag)
    if len(descriptor) < 3 or not data:
        return None
    entries, bits = int(descriptor[0]) % 65536 or 65536, int(descriptor[2])
    # One byte for each entry: of 8 bits, or declared as 16.
    packed = len(data) < 2 * entries and (bits <= 8 or len(data) in (entries, entries + 1))
    kind = "u1" if packed else "<u2" if header.little_endian else ">u2"
    count = min(entries, len(data) // np.dtype(kind).itemsize)
    if not count or not 1 <= bits <= 16:
        return None
    values = np.frombuffer(data, kind, count).astype(float)
    return _Lut(int(descriptor[1]), values, max(float((1 << bits) - 1), float(values.max())))


def _luma(rgb: np.ndarray, layout: Layout) -> npt.NDArray[np.uint8]:
    shift = max(layout.bits_stored - 8, 0)
    gray = np.empty(rgb.shape[:2], np.uint8)
    for block in _blocks(gray):
        gray[block] = np.clip(np.rint((rgb[block] >> shift) @ np.array(_LUMA, np.float32)), 0, 255)
    return gray


def _histogram(patterns: np.ndarray, size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(size, np.int64)
    for block in _blocks(patterns):
        counts += np.bincount(patterns[block].ravel(), minlength=size)
    return counts


def _looked_up(table: npt.NDArray[np.uint8], patterns: np.ndarray) -> npt.NDArray[np.uint8]:
    gray = np.empty(patterns.shape, np.uint8)
    for block in _blocks(patterns):
        gray[block] = table[patterns[block]]
    return gray


def _blocks(picture: np.ndarray) -> list[slice]:
    """Slices of some rows, a few megapixels each: as an index, numpy makes 8 bytes of each pixel."""
    step = max(1, _BLOCK_PIXELS // picture.shape[1])
    return [slice(row, row + step) for row in range(0, picture.shape[0], step)]
