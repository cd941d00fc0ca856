"""DICOM: the same picture whatever way it is stored, the right reason where it is none, and nobody's name."""

import contextlib
import hashlib
import hmac
import io
import logging
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from support.dicom_files import INSTANCE, LOSSLESS, dicom_file, exposed_phantom

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.bundles.bundle import load_engine
from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode, read_image

SIDE = 64
PICTURE = exposed_phantom()
# Mean difference in grey levels of 255: rounding at each depth, and what baseline JPEG at quality 97 loses.
LOSSLESS_TOLERANCE = 1.0
JPEG_TOLERANCE = 2.0


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


REFERENCE = decode(png(PICTURE), SIDE).astype(int)


def difference(data: bytes, reference: np.ndarray = REFERENCE) -> float:
    return float(np.abs(decode(data, SIDE) - reference).mean())


def reason_of(data: bytes) -> str:
    with pytest.raises(RejectedImage) as caught:
        decode(data, SIDE)
    return caught.value.reason


def code_item(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return Sequence([item])


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


@pytest.mark.parametrize(
    ("reason", "elements"),
    [
        ("not_chest_radiograph", {"ViewPosition": "LL"}),
        ("not_chest_radiograph", {"ViewPosition": "LATERAL"}),
        ("not_chest_radiograph", {"ViewCodeSequence": code_item("399173006", "left lateral")}),
        ("not_chest_radiograph", {"ViewPosition": "", "PatientOrientation": ["A", "F"]}),
        ("not_chest_radiograph", {"BodyPartExamined": "KNEE"}),
        ("not_chest_radiograph", {"BodyPartExamined": "TSPINE"}),
        (
            "not_chest_radiograph",
            {"BodyPartExamined": "", "AnatomicRegionSequence": code_item("72696002", "Knee")},
        ),
        ("not_chest_radiograph", {"PresentationIntentType": "FOR PROCESSING"}),
        ("not_chest_radiograph", {"Modality": "CT"}),
        ("not_chest_radiograph", {"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}),
        ("multi_frame", {"NumberOfFrames": "2"}),
        ("too_many_pixels", {"Rows": 60_000, "Columns": 60_000}),
        ("too_small", {"Rows": 4, "Columns": 4}),
        ("unsupported", {"BitsAllocated": 32, "BitsStored": 32}),
        ("no_pixels", {"PixelData": b""}),
    ],
)
def test_what_is_no_frontal_chest_radiograph_is_rejected_with_its_reason(reason, elements):
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        assert reason_of(dicom_file(PICTURE, syntax=syntax, **elements)) == reason


def test_file_without_pixels_or_cut_short_is_rejected_with_its_reason():
    assert reason_of(dicom_file(PICTURE, remove=("PixelData",))) == "no_pixels"
    for syntax in ("explicit", "deflated", "rle", "jpeg-ls"):
        data = dicom_file(PICTURE, syntax=LOSSLESS[syntax])
        for end in (len(data) // 2, len(data) - 20):
            assert reason_of(data[:end]) == "truncated", (syntax, end)
    data = dicom_file(PICTURE)
    for element in (b"CHEST", INSTANCE.encode(), b"FOR PRESENTATION"):
        assert reason_of(data[: data.rindex(element) + 3]) == "truncated", element
    assert reason_of(dicom_file(np.full_like(PICTURE, 90))) == "blank"


@pytest.mark.parametrize(
    "elements",
    [
        {"ViewPosition": "AP"},
        {"ViewPosition": "LLD"},
        {"ViewCodeSequence": code_item("399348003", "antero-posterior")},
        {"BodyPartExamined": "Thorax"},
        {"BodyPartExamined": "CHST"},
        {"BodyPartExamined": "PORTABLE"},
        {"BodyPartExamined": "", "AnatomicRegionSequence": code_item("816094009", "Chest")},
        {"Modality": "CR", "NumberOfFrames": "1"},
        {"PatientAge": "old", "WindowWidth": "0"},
    ],
)
def test_frontal_chest_radiograph_is_scored(elements):
    assert difference(dicom_file(PICTURE, **elements)) <= LOSSLESS_TOLERANCE


def test_missing_tags_reject_nothing():
    described = ("Modality", "SOPClassUID", "SOPInstanceUID", "PresentationIntentType", "BodyPartExamined")
    placed = ("ViewPosition", "PatientOrientation", "PatientAge")
    stored = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit")
    for bits in (8, 16):
        data = dicom_file(PICTURE, bits, remove=(*described, *placed, *stored, "PixelRepresentation"))
        assert difference(data) <= LOSSLESS_TOLERANCE, bits


def test_study_key_is_the_keyed_hash_of_the_instance_and_age_is_in_years(monkeypatch):
    data = dicom_file(PICTURE)
    monkeypatch.delenv("PNEUMONIA_HASH_KEY", raising=False)
    assert read_image(data, SIDE).source.study_key is None
    monkeypatch.setenv("PNEUMONIA_HASH_KEY", "pepper")
    source = read_image(data, SIDE).source
    assert source.study_key == hmac.new(b"pepper", INSTANCE.encode(), hashlib.sha256).hexdigest()
    assert (source.format, source.width, source.height) == ("dicom", PICTURE.shape[1], PICTURE.shape[0])
    assert read_image(png(PICTURE), SIDE).source.study_key is None
    for text, years in (
        ("062Y", 62),
        ("018M", 1.5),
        ("010D", 10 / 365.25),
        ("03W", 21 / 365.25),
        ("62", 62),
        ("62 yrs", 62),
        ("18 MONTHS", 1.5),
        ("Y", None),
        ("62X", None),
        ("-3Y", None),
    ):
        age = read_image(dicom_file(PICTURE, PatientAge=text), SIDE).source.age_years
        assert age == (None if years is None else pytest.approx(years, rel=1e-3)), text


@pytest.mark.parametrize(("photometric", "mode"), [("MONOCHROME1", "MONOCHROME1"), ("DOE^JANE", None)])
def test_colour_mode_is_a_photometric_interpretation_and_never_other_text(photometric, mode):
    data = dicom_file(PICTURE, PhotometricInterpretation=photometric)
    assert read_image(data, SIDE).source.mode == mode


def test_rejected_file_still_has_its_study_key(monkeypatch):
    monkeypatch.setenv("PNEUMONIA_HASH_KEY", "pepper")
    rejected = read_image(dicom_file(PICTURE, ViewPosition="LL"), SIDE)
    assert rejected.rejection is not None
    assert rejected.source.study_key is not None
    assert rejected.source.width == PICTURE.shape[1]


def test_file_without_preamble_or_suffix_is_found_by_its_content(tmp_path):
    for name, syntax in (
        ("bare_implicit", ImplicitVRLittleEndian),
        ("bare_explicit", ExplicitVRLittleEndian),
    ):
        data = dicom_file(PICTURE, syntax=syntax, preamble=False)
        assert difference(data) <= LOSSLESS_TOLERANCE
        (tmp_path / name).write_bytes(data)
    (tmp_path / "IM000001").write_bytes(dicom_file(PICTURE))
    (tmp_path / "notes").write_bytes(b"The film lies in the other folder. " * 20)
    listed = {image.uri.rpartition("/")[2] for image in list_archive(f"file://{tmp_path}", Counter())}
    assert listed == {"bare_implicit", "bare_explicit", "IM000001"}


PLANTED = "Zebra^Quagga"


def planted_files() -> list[bytes]:
    """Files with a name where pydicom would quote it: malformed values, private and misplaced elements."""
    private = dicom_file(PICTURE, PatientComments=PLANTED, PatientName=PLANTED)
    charset = dicom_file(PICTURE, SpecificCharacterSet="ISO_IR 100").replace(
        b"ISO_IR 100", PLANTED[:10].encode()
    )
    window = dicom_file(PICTURE, WindowCenter="1234567.1234").replace(b"1234567.1234", PLANTED.encode())
    age = dicom_file(PICTURE, PatientAge="062Y", ViewPosition=PLANTED, BodyPartExamined=PLANTED)
    uid = dicom_file(PICTURE).replace(INSTANCE.encode(), PLANTED.encode().ljust(len(INSTANCE), b"\0"))
    rows = dicom_file(PICTURE, remove=("Rows",), PatientName=PLANTED)
    cut = private[: private.index(PLANTED.encode()) + 5]
    files = [private, charset, window, age, uid, rows, cut]
    return files + [data[: len(data) // 2] for data in files]


def test_a_patients_name_is_in_no_exception_warning_log_or_output(caplog, capfd):
    logging.getLogger("pydicom").addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    texts = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for data in planted_files():
                decoded = read_image(data, SIDE)
                texts += [repr(decoded.source), repr(decoded.rejection)]
                try:
                    decode(data, SIDE)
                except RejectedImage as rejected:
                    texts.append(f"{rejected!r} {rejected.__cause__!r}")
    finally:
        logging.getLogger("pydicom").removeHandler(caplog.handler)
    out, err = capfd.readouterr()
    shown = " ".join([*texts, *(str(warning.message) for warning in caught), caplog.text, out, err])
    for part in PLANTED.split("^"):
        assert part not in shown
    assert not caught
    assert not caplog.records


def test_the_real_files_decode(shared_data):
    for path in sorted(Path(shared_data / "dicom").glob("*.dcm")):
        decoded = read_image(path.read_bytes(), 224)
        source = decoded.source
        assert decoded.pixels.std() > 20
        assert (source.format, source.width, source.height) == ("dicom", 1024, 1024)
        assert source.mode in ("MONOCHROME1", "MONOCHROME2")


def test_picture_that_kills_its_decoder_is_a_rejection_and_the_next_one_decodes(capfd):
    good = dicom_file(PICTURE, 12, syntax=LOSSLESS["jpeg lossless"])
    # Without its Huffman table gdcm aborts the process.
    assert reason_of(good.replace(b"\xff\xc4", b"\xff\x00", 1)) == "crashed_decoder"
    assert difference(good) <= LOSSLESS_TOLERANCE
    assert capfd.readouterr() == ("", "")


def test_compressed_picture_of_another_size_than_its_header_says_is_not_decoded():
    for syntax in ("jpeg lossless", "jpeg-ls", "jpeg 2000"):
        data = dicom_file(PICTURE, 12, syntax=LOSSLESS[syntax], Rows=PICTURE.shape[0] - 40)
        assert reason_of(data) == "corrupt", syntax


def start_of_data_set(data: bytes) -> int:
    """Where group 2, whose length its first element says, ends."""
    return 144 + struct.unpack_from("<I", data, 140)[0]


@pytest.mark.timeout(120)
def test_a_million_elements_end_early():
    items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 1_000_000
    head = dicom_file(PICTURE)
    head = head[: start_of_data_set(head)]
    undefined = b"\x08\x00\x18\x22SQ\x00\x00\xff\xff\xff\xff" + items
    assert reason_of(head + undefined) == "too_slow"
    sized = b"\x08\x00\x18\x22SQ\x00\x00" + struct.pack("<I", len(items)) + items
    assert reason_of(head + sized) == "no_pixels"


@pytest.mark.slow
def test_deflate_bomb_is_refused():
    head = dicom_file(PICTURE, syntax=LOSSLESS["deflated"])
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    zeros = b"\x08\x00\x16\x00" + bytes(2**26)
    bomb = b"".join(squeeze.compress(zeros) for _ in range(9)) + squeeze.flush()
    assert reason_of(head[: start_of_data_set(head)] + bomb) == "too_large"


def fuzz_seeds() -> list[bytes]:
    small = exposed_phantom(48, 40)
    files = [
        dicom_file(small, bits, "MONOCHROME1", syntax, look)
        for syntax in (*LOSSLESS.values(), JPEGBaseline8Bit)
        for bits, look in (
            ((8, "voi lut"),) if syntax == JPEGBaseline8Bit else ((8, "voi lut"), (12, "window"))
        )
    ]
    rgb = dicom_file(small, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    return [*files, rgb.replace(small.tobytes(), np.stack([small] * 3, -1).tobytes())]


SEEDS = fuzz_seeds()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, dropped, doubled or inserted, or its end cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        # Most of a file is pixels: half of the changes go to its elements.
        end = len(data) if draw(st.booleans()) else min(len(data), 1500)
        at = draw(st.integers(130, max(130, end - 1)))
        change = draw(st.sampled_from(["set", "drop", "double", "insert", "cut"]))
        if change == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif change == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif change == "double":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif change == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        elif draw(st.integers(0, 7)) == 0:
            del data[at:]
    return bytes(data)


def check_is_rejected_or_a_square(data: bytes) -> None:
    square = None
    with contextlib.suppress(RejectedImage):
        square = decode(data, 32)
    assert square is None or (square.shape, square.dtype) == ((32, 32), np.uint8)


# One file may take at most 10 s.
FUZZ = {"deadline": 10_000, "database": None, "suppress_health_check": list(HealthCheck)}


@given(mutated())
@settings(max_examples=300, **FUZZ)
def test_mutated_file_is_rejected_or_a_square(data):
    check_is_rejected_or_a_square(data)


@pytest.mark.soak
@given(mutated())
@settings(max_examples=25_000, **FUZZ)
def test_25000_mutated_files_are_rejected_or_squares(data):
    check_is_rejected_or_a_square(data)
