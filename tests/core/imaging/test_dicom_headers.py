"""The header of a DICOM file decides which reason rejects it, and gives its study key and age."""

import hashlib
import hmac
from collections import Counter

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from support.images.decoded import LOSSLESS_TOLERANCE, PICTURE, SIDE, difference, png, reason_of
from support.images.dicom_files import INSTANCE, LOSSLESS, dicom_file

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.imaging.decode import read_image


def code_item(value: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return Sequence([item])


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


def test_sex_is_one_of_dicoms_letters_and_never_other_text():
    for text, sex in (("F", "F"), ("m", "M"), ("O", "O"), ("Doe", None), ("", None)):
        assert read_image(dicom_file(PICTURE, PatientSex=text), SIDE).source.sex == sex


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
