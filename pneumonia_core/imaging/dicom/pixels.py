"""The stored pixel values of a DICOM radiograph, decompressed within limits."""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom.uid as uids
from pydicom.encaps import get_frame

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.contract import MAX_SCAN_PIXELS, check_size
from pneumonia_core.imaging.dicom import tags
from pneumonia_core.imaging.dicom.child_decoder import decode_stored, decompress
from pneumonia_core.imaging.dicom.header import Header
from pneumonia_core.imaging.jpeg_frame import jpeg_frame

# The plugin of pydicom that decodes each transfer syntax; None where pixels are not compressed. Pillow's
# decoder of baseline JPEG is the most tested of them, and the only one that runs in this process.
_DECODERS: Final[dict[str, str | None]] = {
    uids.ImplicitVRLittleEndian: None,
    uids.ExplicitVRLittleEndian: None,
    uids.DeflatedExplicitVRLittleEndian: None,
    uids.ExplicitVRBigEndian: None,
    uids.RLELossless: "pylibjpeg",
    uids.JPEGBaseline8Bit: "pillow",
    uids.JPEGExtended12Bit: "pillow",
    uids.JPEGLossless: "gdcm",
    uids.JPEGLosslessSV1: "gdcm",
    uids.JPEGLSLossless: "gdcm",
    uids.JPEGLSNearLossless: "gdcm",
    uids.JPEG2000Lossless: "pylibjpeg",
    uids.JPEG2000: "pylibjpeg",
    uids.HTJ2KLossless: "pylibjpeg",
    uids.HTJ2KLosslessRPCL: "pylibjpeg",
    uids.HTJ2K: "pylibjpeg",
}
_BASELINE: Final = {uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit}
_WAVELET: Final = {
    uids.JPEG2000Lossless,
    uids.JPEG2000,
    uids.HTJ2KLossless,
    uids.HTJ2KLosslessRPCL,
    uids.HTJ2K,
}
# So many values of the bits above BitsStored, without a gap, do not come from an overlay, which has one bit.
_MANY: Final = 5
_MONOCHROME: Final = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PHOTOMETRIC_INTERPRETATIONS: Final = frozenset((*_MONOCHROME, *_COLOUR))


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored (PS3.3 C.7.6.3); what the file does not say has its usual value."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool


def read_layout(header: Header) -> Layout:
    """How the header says that pixels are stored.

    Raises RejectedImage for several frames, a size beyond the limits, and a layout that is not read here.
    """
    rows, columns = header.integer(tags.ROWS, 0), header.integer(tags.COLUMNS, 0)
    frames = header.integer(tags.FRAMES, 1, "IS")
    if frames > 1:
        raise RejectedImage("multi_frame", f"{frames} frames, one radiograph has one")
    check_size(columns, rows)
    samples = header.integer(tags.SAMPLES, 1)
    photometric = header.text(tags.PHOTOMETRIC) or ("MONOCHROME2" if samples == 1 else "RGB")
    if photometric not in (_MONOCHROME if samples == 1 else _COLOUR) or samples not in (1, 3):
        raise RejectedImage("unsupported", f"a colour space of {samples} samples that is not read here")
    allocated = header.integer(tags.BITS_ALLOCATED, 0) or _guessed_depth(header, rows * columns * samples)
    stored = header.integer(tags.BITS_STORED, allocated)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise RejectedImage("unsupported", f"{stored} of {allocated} bits for each sample")
    signed = header.integer(tags.PIXEL_REPRESENTATION, 0) == 1
    return Layout(rows, columns, samples, photometric, allocated, stored, signed)


def read_stored(header: Header, layout: Layout) -> np.ndarray:
    """The stored values, integers [H, W], or RGB [H, W, 3] where the file has colours.

    Raises RejectedImage, and whatever a decoder raises on hostile bytes.
    """
    if header.transfer_syntax not in _DECODERS:
        raise RejectedImage("unsupported", "a transfer syntax that no decoder here reads")
    data, syntax = header.raw(tags.PIXEL_DATA), header.transfer_syntax
    plugin = _DECODERS[syntax]
    # BitsStored may be too small. Whole values show it; of a stream that says its bits, so many are whole.
    bits = layout.bits_allocated
    if plugin is None:
        _check_native(data, layout)
    elif (stream := _check_encapsulated(data, syntax, layout)) is not None:
        bits = max(layout.bits_stored, min(stream.bits, layout.bits_allocated))
        if plugin == "pillow" and stream.bits > 8:
            # gdcm decodes by what is in the stream. pydicom lets it only where the syntax is this one.
            plugin, syntax = "gdcm", uids.JPEGLossless
    options: dict[str, int | str] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": bits,
        "pixel_representation": int(layout.signed),
        "planar_configuration": header.integer(tags.PLANAR, 0),
        "pixel_keyword": "PixelData",
        "allow_excess_frames": False,
        "pixel_vr": header.vr(tags.PIXEL_DATA) or "OW",
        "correct_unused_bits": True,
    }
    read = decode_stored if plugin in (None, "pillow") else decompress
    stored = read(data, syntax, plugin or "", options)
    return stored if bits == layout.bits_stored else _used_bits(stored, header, layout)


def _used_bits(stored: np.ndarray, header: Header, layout: Layout) -> np.ndarray:
    """The values without the bits that are not theirs: those above the high bit may hold an overlay."""
    bits, unused = layout.bits_stored, layout.bits_allocated - layout.bits_stored
    shift = header.integer(tags.HIGH_BIT, bits - 1) + 1 - bits
    is_low = not layout.signed and int(stored.max(initial=0)) < 1 << bits
    if is_low or not unused:
        return stored
    if 0 < shift <= unused:
        # The left shift drops the bits above the high bit; the right shift extends the sign of signed values.
        above = unused - shift
        return (stored << above) >> (above + shift)
    masked = (stored << unused) >> unused
    if np.array_equal(masked, stored) or _tears(stored, masked, bits):
        return stored
    return masked


def _tears(stored: np.ndarray, masked: np.ndarray, bits: int) -> bool:
    """Whether the picture tears where the bits above BitsStored are dropped: then they belong to its values.

    Values take all of many upper bits in turn. Of few, neighbours that differ in them are closer together
    with them; where an overlay begins, they are closer without.
    """
    upper = np.unique(stored >> bits)
    if len(upper) >= _MANY and int(upper[-1]) - int(upper[0]) + 1 == len(upper):
        return True
    rows = slice(None, None, max(1, len(stored) // 200))
    whole, rest = (np.diff(values[rows].astype(np.int32), axis=1) for values in (stored, masked))
    differ = np.count_nonzero(whole != rest)
    return bool(np.count_nonzero(np.abs(whole) < np.abs(rest)) > differ / 2)


def _guessed_depth(header: Header, values: int) -> int:
    compressed = _DECODERS.get(header.transfer_syntax) is not None
    return 16 if not compressed and len(header.raw(tags.PIXEL_DATA)) >= 2 * values else 8


def _check_native(data: bytes, layout: Layout) -> None:
    values = layout.rows * layout.columns * layout.samples
    # Its colours have half the width (PS3.3 C.7.6.3.1.2).
    halved = layout.photometric == "YBR_FULL_422"
    expected = values * layout.bits_allocated // 8 * (2 if halved else 3) // 3
    if len(data) < expected:
        raise RejectedImage("truncated", f"{len(data)} bytes of pixels, {expected} are needed")


@dataclass(frozen=True)
class _Stream:
    """What a compressed picture says of itself."""

    bits: int
    size: tuple[int, int, int]


def _check_encapsulated(data: bytes, syntax: str, layout: Layout) -> _Stream | None:
    """What the compressed picture says of itself; None where it is run-length encoded and says nothing.

    Raises RejectedImage unless it has the header's size: decoders allocate by either.
    """
    frame = get_frame(data, 0, number_of_frames=1)
    if syntax == uids.RLELossless:
        return None
    stream = _wavelet_stream(frame) if syntax in _WAVELET else _jpeg_stream(frame)
    if stream is None or stream.size != (layout.rows, layout.columns, layout.samples):
        raise RejectedImage("corrupt", "the compressed picture has another size than its header says")
    if syntax in _BASELINE and stream.bits > 8 and layout.bits_allocated != 16:
        raise RejectedImage("corrupt", "the compressed picture has more bits than its header says")
    scans = frame.count(b"\xff\xda") if syntax not in _WAVELET else 1
    if scans * layout.rows * layout.columns > MAX_SCAN_PIXELS:
        raise RejectedImage("too_slow", f"{scans} scans of {layout.columns} x {layout.rows} pixels")
    return stream


def _jpeg_stream(frame: bytes) -> _Stream | None:
    found = jpeg_frame(frame)
    return None if found is None else _Stream(found[0], found[1:])


def _wavelet_stream(frame: bytes) -> _Stream | None:
    """By the SIZ segment of a JPEG 2000 codestream (ITU T.800, A.5.1); None without one."""
    at = frame[:4096].find(b"\xff\x4f\xff\x51")
    if at < 0 or len(frame) < at + 44:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    components, depth = struct.unpack_from(">HB", frame, at + 40)
    # The upper bit of the depth is the sign.
    return _Stream((depth & 0x7F) + 1, (bottom - top, right - left, components))
