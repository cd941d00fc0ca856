"""A DICOM file gives the same picture in whatever way it stores its values."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, JPEGBaseline8Bit
from support.images.decoded import JPEG_TOLERANCE, LOSSLESS_TOLERANCE, PICTURE, SIDE, difference, png
from support.images.dicom_files import LOSSLESS, dicom_file, exposed_phantom

from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.imaging.decode import decode, read_image


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_one_picture_gives_one_square_however_it_is_stored(syntax, photometric):
    for bits in (8, 12, 16):
        for look in ("window", "voi lut", "none"):
            data = dicom_file(PICTURE, bits, photometric, LOSSLESS[syntax], look)
            assert difference(data) <= LOSSLESS_TOLERANCE, (bits, look)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("look", ["window", "voi lut"])
def test_baseline_jpeg_is_close_to_the_picture(photometric, look):
    assert difference(dicom_file(PICTURE, 8, photometric, JPEGBaseline8Bit, look)) <= JPEG_TOLERANCE


def test_every_way_of_storing_gives_the_same_probabilities(tiny_bundle):
    files = [
        dicom_file(PICTURE, bits, photometric, syntax, look)
        for syntax in (*LOSSLESS.values(), JPEGBaseline8Bit)
        for bits in ((8,) if syntax == JPEGBaseline8Bit else (8, 12, 16))
        for photometric in ("MONOCHROME1", "MONOCHROME2")
        for look in ("window", "voi lut", "none")
    ]
    squares = np.stack([decode(data, SIDE) for data in (png(PICTURE), *files)])
    engine = load_engine(tiny_bundle, "openvino", "float32")
    probabilities = np.concatenate(
        [engine(squares[i : i + 32]).probabilities for i in range(0, len(squares), 32)]
    )
    assert np.abs(probabilities - probabilities[0]).max() <= 0.02


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize("look", ["window", "none"])
def test_padding_is_black_and_sets_no_percentile(syntax, photometric, look):
    padded = np.ones(PICTURE.shape, bool)
    padded[20:-20, 20:-20] = False
    inner = exposed_phantom(PICTURE.shape[0] - 40, PICTURE.shape[1] - 40)
    picture = np.zeros_like(PICTURE)
    picture[20:-20, 20:-20] = inner
    data = dicom_file(picture, 12, photometric, LOSSLESS[syntax], look, levels=(100, 4000), padded=padded)
    assert difference(data, decode(png(picture), SIDE).astype(int)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("look", ["window", "voi lut", "none"])
def test_signed_values_are_read(look):
    for syntax in ("implicit", "explicit", "big endian", "jpeg lossless", "jpeg-ls", "jpeg 2000", "rle"):
        data = dicom_file(PICTURE, 16, syntax=LOSSLESS[syntax], look=look, levels=(-1000, 1500), signed=True)
        assert difference(data) <= LOSSLESS_TOLERANCE, syntax


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", ["implicit", "big endian"])
def test_bits_below_and_above_the_stored_ones_are_no_part_of_a_value(syntax, signed):
    """12 bits up to bit 13, an overlay in bit 15."""
    levels = (-2048, 2047) if signed else (0, 4095)
    low, high = levels
    stored = np.rint(low + PICTURE / 255 * (high - low)).astype(np.int64)
    overlay = np.zeros_like(stored)
    overlay[:40, :60] = 1 << 15
    bits = ((stored << 2) & 0x3FFF) | overlay | 3
    pixels = bits.astype(">u2" if syntax == "big endian" else "<u2").tobytes()
    data = dicom_file(
        PICTURE, 12, syntax=LOSSLESS[syntax], levels=levels, signed=signed, HighBit=13, PixelData=pixels
    )
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize(
    ("signed", "modality", "first"),
    [
        (False, "-1024", -1024),
        (False, "40000", 40000),
        (True, "-1024", -3024),
        (True, "40000", 38000),
        (True, "look-up table", 40000),
        (True, None, -2000),
    ],
)
def test_first_value_of_a_voi_lut_is_negative_only_where_what_it_is_given_may_be(signed, modality, first):
    """A file with implicit representations does not say which it is (PS3.3 C.11.2.1.1)."""
    levels = (-2000, 2000) if signed else (0, 4000)
    elements: dict[str, object] = {"VOILUTSequence": lut_item(first, np.linspace(0, 65535, 4001))}
    if modality == "look-up table":
        elements["ModalityLUTSequence"] = lut_item(-2000, np.arange(40000, 44001))
    elif modality is not None:
        elements.update(RescaleSlope="1", RescaleIntercept=modality)
    data = dicom_file(
        PICTURE, 12, syntax=ImplicitVRLittleEndian, look="none", levels=levels, signed=signed, **elements
    )
    assert difference(data) <= LOSSLESS_TOLERANCE


def lut_item(first: int, values: np.ndarray) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values), first, 16])
    item.add_new(0x00283006, "US", np.rint(values).astype(int).tolist())
    return Sequence([item])


def test_window_is_of_rescaled_values_and_a_modality_lut_goes_before_it():
    rescaled = {
        "RescaleSlope": "2",
        "RescaleIntercept": "-500",
        "WindowCenter": "3500",
        "WindowWidth": "8001",
    }
    assert difference(dicom_file(PICTURE, 12, levels=(0, 4000), **rescaled)) <= LOSSLESS_TOLERANCE
    item = Dataset()
    item.add_new(0x00283002, "US", [4096, 0, 16])
    item.add_new(0x00283006, "US", list(range(0, 4096 * 10, 10)))
    curve = {"ModalityLUTSequence": Sequence([item]), "WindowCenter": "20000.5", "WindowWidth": "40001"}
    assert difference(dicom_file(PICTURE, 12, levels=(0, 4000), **curve)) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize("look", ["LINEAR_EXACT", "SIGMOID"])
def test_window_has_the_function_that_it_names(look):
    center, width = 2047.5, 4095.0
    stored = np.rint(PICTURE / 255 * 4095)
    if look == "SIGMOID":
        shown = 255 / (1 + np.exp(-4 * (stored - center) / width))
    else:
        shown = 255 * np.clip((stored - center) / width + 0.5, 0, 1)
    data = dicom_file(PICTURE, 12, VOILUTFunction=look, WindowCenter=f"{center}", WindowWidth=f"{width}")
    assert (
        difference(data, decode(png(np.rint(shown).astype(np.uint8)), SIDE).astype(int)) <= LOSSLESS_TOLERANCE
    )


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "PALETTE COLOR"])
def test_colours_become_grey(photometric):
    colour = {"PhotometricInterpretation": photometric, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    if photometric == "RGB":
        colour["PixelData"] = np.stack([PICTURE] * 3, -1).tobytes()
    if photometric == "YBR_FULL":
        grey = np.full_like(PICTURE, 128)
        colour["PixelData"] = np.stack([PICTURE, grey, grey], -1).tobytes()
    if photometric == "PALETTE COLOR":
        ramp = (np.arange(256) * 257).astype("<u2").tobytes()
        colour["SamplesPerPixel"] = 1
        for name in ("Red", "Green", "Blue"):
            colour[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
            colour[f"{name}PaletteColorLookupTableData"] = ramp
    assert difference(dicom_file(PICTURE, look="none", **colour)) <= LOSSLESS_TOLERANCE


def test_the_real_files_decode(shared_data):
    for path in sorted(Path(shared_data / "dicom").glob("*.dcm")):
        decoded = read_image(path.read_bytes(), 224)
        source = decoded.source
        assert decoded.pixels.std() > 20
        assert (source.format, source.width, source.height) == ("dicom", 1024, 1024)
        assert source.mode in ("MONOCHROME1", "MONOCHROME2")
