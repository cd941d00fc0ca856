"""A malformed DICOM file is a rejection in bounded time, and no patient's name gets out of it."""

import contextlib
import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEGBaseline8Bit
from support.images.decoded import LOSSLESS_TOLERANCE, PICTURE, SIDE, difference, reason_of
from support.images.dicom_files import INSTANCE, LOSSLESS, dicom_file, exposed_phantom

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode, read_image

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
    files = planted_files()
    # pydicom warns of what it writes, too, until the program's part for DICOM is imported.
    caplog.clear()
    capfd.readouterr()
    logging.getLogger("pydicom").addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    texts = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for data in files:
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
