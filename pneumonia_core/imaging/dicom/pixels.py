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
_WAVELET: Final = {
    uids.JPEG2000Lossless,
    uids.JPEG2000,
    uids.HTJ2KLossless,
    uids.HTJ2KLosslessRPCL,
    uids.HTJ2K,
}
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
    data = header.raw(tags.PIXEL_DATA)
    plugin = _DECODERS[header.transfer_syntax]
    if plugin is None:
        _check_native(data, layout)
    else:
        _check_encapsulated(data, header.transfer_syntax, layout)
    options: dict[str, int | str] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "planar_configuration": header.integer(tags.PLANAR, 0),
        "pixel_keyword": "PixelData",
        "allow_excess_frames": False,
        "pixel_vr": header.vr(tags.PIXEL_DATA) or "OW",
        # The unused high bits may hold an overlay.
        "correct_unused_bits": True,
    }
    shift = header.integer(tags.HIGH_BIT, layout.bits_stored - 1) + 1 - layout.bits_stored
    if plugin is None and 0 < shift <= layout.bits_allocated - layout.bits_stored:
        options.update(bits_stored=layout.bits_allocated)
    read = decode_stored if plugin in (None, "pillow") else decompress
    stored = read(data, header.transfer_syntax, plugin or "", options)
    if options["bits_stored"] == layout.bits_stored:
        return stored
    # The left shift drops the bits above the high bit; the right shift extends the sign of signed values.
    above = layout.bits_allocated - layout.bits_stored - shift
    return (stored << above) >> (above + shift)


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


def _check_encapsulated(data: bytes, syntax: str, layout: Layout) -> None:
    """Raise RejectedImage unless a compressed picture has the header's size: decoders allocate by either."""
    frame = get_frame(data, 0, number_of_frames=1)
    if syntax == uids.RLELossless:
        return
    if syntax == uids.JPEGExtended12Bit and layout.bits_stored != 8:
        raise RejectedImage("unsupported", "JPEG of 12 bits for each sample")
    size = _wavelet_size(frame) if syntax in _WAVELET else _jpeg_size(frame)
    if size != (layout.rows, layout.columns, layout.samples):
        raise RejectedImage("corrupt", "the compressed picture has another size than its header says")
    scans = frame.count(b"\xff\xda") if syntax not in _WAVELET else 1
    if scans * layout.rows * layout.columns > MAX_SCAN_PIXELS:
        raise RejectedImage("too_slow", f"{scans} scans of {layout.columns} x {layout.rows} pixels")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components in the frame header (SOFn of ITU T.81, SOF55 of JPEG-LS); None without
    one."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HHB", frame, at + 5)
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None


def _wavelet_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components in the SIZ segment of a JPEG 2000 codestream (ITU T.800, A.5.1); None
    without one."""
    at = frame[:4096].find(b"\xff\x4f\xff\x51")
    if at < 0 or len(frame) < at + 44:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", frame, at + 8)
    return bottom - top, right - left, struct.unpack_from(">H", frame, at + 40)[0]
