"""DICOM tags that lie about the picture: look-up tables, windows, depths. And 12 bits in JPEG."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit
from support.images.decoded import LOSSLESS_TOLERANCE, PICTURE, SIDE, difference, png, reason_of
from support.images.dicom_files import LOSSLESS, dicom_file
from support.images.jpeg_12_bits import jpeg_12_bits

from pneumonia_core.imaging.decode import decode

TWELVE_BITS = np.rint(PICTURE / 255 * 4095).astype(int)


def lut(entries: np.ndarray, declared_bits: int, data: bytes | None = None) -> dict[str, Sequence]:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), 0, declared_bits])
    item.add_new(0x00283006, "OW", data or np.rint(entries).astype("<u2").tobytes())
    return {"VOILUTSequence": Sequence([item])}


@pytest.mark.parametrize(
    ("bits", "declared"), [(12, 16), (10, 16), (14, 16), (8, 12), (8, 16), (12, 8), (16, 16)]
)
def test_white_of_a_lut_is_that_of_its_entries_not_of_its_declaration(bits, declared):
    entries = np.linspace(0, (1 << bits) - 1, 4096)
    assert difference(dicom_file(PICTURE, 12, look="none", **lut(entries, declared))) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("declared", [8, 16])
def test_lut_of_one_byte_for_each_entry_is_read_as_such(declared):
    data = np.rint(np.linspace(0, 255, 4096)).astype(np.uint8).tobytes()
    elements = lut(np.zeros(4096), declared, data)
    assert difference(dicom_file(PICTURE, 12, look="none", **elements)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("center", "width"),
    # Of an 8-bit copy, of CT, 0 and 1, of other depths, of a signed picture.
    [
        *(("128", "256"), ("127.5", "255"), ("40", "400"), ("0", "1"), ("1", "1"), ("32768", "65535")),
        *(("60000", "9"), ("-600", "1500"), ("-2048", "1000"), ("0.5", "1"), ("1e6", "2e6")),
    ],
)
def test_window_that_makes_a_white_or_black_sheet_gives_way_to_the_percentiles(photometric, center, width):
    data = dicom_file(PICTURE, 12, photometric, WindowCenter=center, WindowWidth=width)
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize(
    ("bits", "center", "width"),
    [(10, "128", "256"), (14, "2048", "4096"), (16, "8192", "16384"), (8, "2048", "4096")],
)
def test_window_of_another_depth_gives_way_to_the_percentiles(bits, center, width):
    data = dicom_file(PICTURE, bits, WindowCenter=center, WindowWidth=width)
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("function", ["SIGMOID", "LINEAR_EXACT"])
def test_every_window_function_may_lie(function):
    data = dicom_file(PICTURE, 14, VOILUTFunction=function, WindowCenter="128", WindowWidth="256")
    assert difference(data) <= LOSSLESS_TOLERANCE


def test_lut_that_makes_a_white_sheet_gives_way_to_the_percentiles():
    elements = lut(np.linspace(0, 255, 256), 8)
    assert difference(dicom_file(PICTURE, 12, look="none", **elements)) <= LOSSLESS_TOLERANCE


def shown_by(center: float, width: float, picture: np.ndarray = PICTURE) -> np.ndarray:
    shown = (picture / 255 * 4095 - (center - 0.5)) / (width - 1) + 0.5
    return decode(png(np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)), SIDE).astype(int)


@pytest.mark.parametrize(("center", "width"), [(2000, 2000), (1200, 2000), (3000, 1500), (2048, 12000)])
def test_window_that_shows_the_picture_is_kept(center, width):
    data = dicom_file(PICTURE, 12, WindowCenter=str(center), WindowWidth=str(width))
    assert difference(data, shown_by(center, width)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("border", [0, 255])
def test_window_of_a_small_field_in_a_large_plate_is_kept(border):
    plate = np.full((600, 600), border, np.uint8)
    plate[100:340, 100:300] = PICTURE
    data = dicom_file(plate, 12, WindowCenter="1500", WindowWidth="2600")
    assert difference(data, shown_by(1500, 2600, plate)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("window", [("128", "256"), ("2048", "4096")])
def test_plate_that_was_not_exposed_is_blank_whatever_its_window(window):
    noise = np.random.default_rng(4).normal(2000, 4, PICTURE.shape)
    pixels = np.rint(noise).astype("<u2").tobytes()
    data = dicom_file(PICTURE, 12, WindowCenter=window[0], WindowWidth=window[1], PixelData=pixels)
    assert reason_of(data) == "blank"


@pytest.mark.parametrize("stored", [8, 10, 11])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_values_beyond_bits_stored_are_values(syntax, stored):
    data = dicom_file(PICTURE, 12, syntax=LOSSLESS[syntax], BitsStored=stored, HighBit=stored - 1)
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("syntax", ["implicit", "rle"])
def test_signed_values_beyond_bits_stored_are_values(syntax):
    data = dicom_file(
        PICTURE, 16, syntax=LOSSLESS[syntax], levels=(-1500, 1500), signed=True, BitsStored=10, HighBit=9
    )
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_sign_of_values_is_that_of_bits_stored_also_in_a_deeper_stream(syntax):
    # In two's complement of 12 bits, without the upper bits that a sign would have in 16.
    patterns = (TWELVE_BITS ^ 0x800) * (255 / 4095)
    data = dicom_file(
        *(patterns, 16, "MONOCHROME2", LOSSLESS[syntax], "none", (0, 4095)),
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=1,
    )
    assert difference(data) <= LOSSLESS_TOLERANCE


def test_overlay_above_bits_stored_is_no_part_of_the_values():
    rows, columns = np.indices(PICTURE.shape)
    text = ((rows // 3 + columns // 5) % 4 == 0) & (rows < 60)
    for bit in (12, 15):
        pixels = (TWELVE_BITS | text << bit).astype("<u2").tobytes()
        assert difference(dicom_file(PICTURE, 12, PixelData=pixels)) <= LOSSLESS_TOLERANCE


def test_values_that_lie_lower_than_the_high_bit_says_are_not_shifted():
    assert difference(dicom_file(PICTURE, 12, HighBit=15)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("look", ["window", "voi lut", "none"])
def test_inverse_shape_inverts_once(photometric, look):
    # MONOCHROME1 has it by rule; elsewhere it alone says that high values are dark.
    file = dicom_file(PICTURE, 12, "MONOCHROME1", look=look, PresentationLUTShape="INVERSE")
    assert difference(file.replace(b"MONOCHROME1 ", photometric.encode() + b" ")) <= LOSSLESS_TOLERANCE
    identity = dicom_file(PICTURE, 12, photometric, look=look, PresentationLUTShape="IDENTITY")
    assert difference(identity) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, JPEGBaseline8Bit])
@pytest.mark.parametrize("look", ["window", "voi lut", "none"])
def test_jpeg_of_12_bits_in_dicom_is_scored(syntax, look):
    pixels = encapsulate([jpeg_12_bits(TWELVE_BITS)])
    data = dicom_file(PICTURE, 12, syntax=LOSSLESS["jpeg 2000"], look=look, PixelData=pixels)
    assert difference(data.replace(LOSSLESS["jpeg 2000"].encode(), syntax.encode())) <= LOSSLESS_TOLERANCE


def test_jpeg_of_12_bits_alone_is_unsupported():
    assert reason_of(jpeg_12_bits(TWELVE_BITS)) == "unsupported"
