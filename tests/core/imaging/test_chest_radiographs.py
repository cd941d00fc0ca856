"""Which DICOM files are chest radiographs, in the words and character sets that hospitals write."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from support.images.decoded import LOSSLESS_TOLERANCE, PICTURE, SIDE, difference
from support.images.dicom_files import dicom_file

from pneumonia_core.imaging.decode import read_image
from pneumonia_core.imaging.dicom.words import fold, is_frontal, is_lateral

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SILENT = {"ViewPosition": "", "PatientOrientation": ""}


def file_with(text: dict[str, tuple[int, str, bytes]], **elements: object) -> bytes:
    """A DICOM file with these bytes as they are: no character set forbids them."""
    data = dicom_file(
        PICTURE, **{name: "".ljust(len(value), "#") for name, (_, _, value) in text.items()}, **elements
    )
    for name, (tag, vr, value) in text.items():
        padded = value + b" " * (len(value) % 2)
        head = tag.to_bytes(4, "big")
        at = data.index(bytes([head[1], head[0], head[3], head[2]]) + vr.encode())
        assert data[at + 8 :].startswith(b"#" * len(value)), name
        data = data[: at + 8] + padded + data[at + 8 + len(padded) :]
    return data


def body_part(value: bytes, **elements: object) -> bytes:
    return file_with({"BodyPartExamined": (0x00180015, "CS", value)}, **elements)


def detail_of(data: bytes, trust_chest: bool = False) -> str | None:
    rejection = read_image(data, SIDE, trust_chest).rejection
    return rejection and rejection.detail


@pytest.mark.parametrize(
    ("words", "encoding", "character_set"),
    [
        ("CHEST PA|CHEST_1V|P CHEST|Lungs|CXR|THORAX/ABDOMEN", "ascii", None),
        (
            "Brustkorb|Lunge|Poumons|Cage thoracique|Poitrine|Pecho|Torace|Petto|Polmoni|Peito|Pulmao",
            "ascii",
            None,
        ),
        (
            "Borstkas|X-Thorax|KLATKA PIERSIOWA|RTG kl. piers.|klatka|RTG KLP|TORAKS|Akciger|GOGUS",
            "ascii",
            None,
        ),
        ("Tórax|TÓRAX|Pulmão|Bröstkorg", "latin-1", "ISO_IR 100"),
        ("Tórax|Pulmão", "latin-1", None),
        ("Tórax|Klatka piersiowa, płuca|GÖĞÜS|Грудная клетка|Θώρακας|胸部|흉부|肺", "utf-8", "ISO_IR 192"),
        ("Płuca", "iso8859-2", "ISO_IR 101"),
        ("Göğüs|Akciğer", "iso8859-9", "ISO_IR 148"),
        ("ОГК|Органы грудной клетки|Лёгкие", "iso8859-5", "ISO_IR 144"),
        ("ОГК|Грудь", "cp1251", "ISO_IR 100"),
        ("Θώρακας|Πνεύμονες", "iso8859-7", "ISO_IR 126"),
        ("胸部|肺", "gb18030", "GB18030"),
        ("胸部正位", "gb18030", None),
        ("胸部", "iso2022_jp", "\\ISO 2022 IR 87"),
        ("ｷｮｳﾌﾞ", "shift_jis", "ISO_IR 13"),
        ("흉부|가슴", "utf-8", None),
    ],
)
def test_chest_is_known_in_the_words_and_character_sets_that_hospitals_write(words, encoding, character_set):
    stated = {} if character_set is None else {"SpecificCharacterSet": character_set.split("\\")}
    for word in words.split("|"):
        assert detail_of(body_part(word.encode(encoding), **stated)) is None, word


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (
            "TSPINE|Thoracic spine|THORACOLUMBAR|Brustwirbelsäule|Columna dorsal|грудной отдел|胸椎",
            "spine",
        ),
        ("Sternum|Brustbein|胸骨", "sternum"),
        ("Brustdrüse|BREAST", "breast"),
        ("KNEE|Knie re.|Rodilla|колено", "knee"),
        ("SKULL|Schädel", "skull"),
        ("Abdomen|KUB|腹部", "abdomen"),
        ("FOREARM", "forearm"),
        ("Karaciğer|Doe^Jane|4711", "another one"),
    ],
)
def test_body_part_other_than_the_chest_is_named_from_a_closed_list(words, part):
    for word in words.split("|"):
        data = body_part(word.encode(), SpecificCharacterSet="ISO_IR 192")
        assert detail_of(data) == f"its body part is {part}, the model reads the chest", word
        assert detail_of(data, trust_chest=True) is None


def test_body_part_that_names_none_leaves_it_to_the_region():
    knee = Dataset()
    knee.CodeValue, knee.CodingSchemeDesignator, knee.CodeMeaning = "72696002", "SCT", "Kniegelenk"
    for word in ("UNBEKANNT", "Sonstige", "不明", "*"):
        assert detail_of(body_part(word.encode(), SpecificCharacterSet="ISO_IR 192")) is None
        named = detail_of(
            body_part(
                word.encode(), SpecificCharacterSet="ISO_IR 192", AnatomicRegionSequence=Sequence([knee])
            )
        )
        assert named == "its body part is knee, the model reads the chest"


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RG", "dx "])
def test_every_name_of_radiography_is_scored(modality):
    assert difference(dicom_file(PICTURE, Modality=modality)) <= LOSSLESS_TOLERANCE
    assert (
        difference(dicom_file(PICTURE, Modality=modality, SOPClassUID=SECONDARY_CAPTURE))
        <= LOSSLESS_TOLERANCE
    )
    multi_frame_class = dicom_file(PICTURE, Modality=modality, SOPClassUID=f"{SECONDARY_CAPTURE}.2")
    assert difference(multi_frame_class) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize(
    ("modality", "elements"),
    [
        ("CT", {"Modality": "CT"}),
        ("MG", {"Modality": "MG"}),
        ("another one", {"Modality": "DOE^JANE"}),
        ("MR", {"Modality": "", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}),
        ("another one", {"Modality": "CR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}),
        ("OT", {"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE, "BodyPartExamined": ""}),
        ("OT", {"Modality": "OT"}),
    ],
)
def test_other_modality_is_named_from_a_closed_list(modality, elements):
    data = dicom_file(PICTURE, **elements)
    assert detail_of(data) == f"its modality is {modality}, a radiograph has CR, DX, DR or RG"
    assert detail_of(data, trust_chest=True) is None


def test_secondary_capture_of_another_program_is_scored_where_it_says_chest():
    data = dicom_file(PICTURE, Modality="OT", SOPClassUID=SECONDARY_CAPTURE, BodyPartExamined="THORAX")
    assert difference(data) <= LOSSLESS_TOLERANCE


@pytest.mark.parametrize(
    ("name", "source", "text"),
    [
        ("SeriesDescription", "series description", "Thorax seitlich"),
        ("SeriesDescription", "series description", "CHEST_LAT"),
        ("SeriesDescription", "series description", "TORACE LL"),
        ("ProtocolName", "protocol name", "Thorax de profil"),
        ("ProtocolName", "protocol name", "Tórax perfil"),
        ("PerformedProcedureStepDescription", "procedure step description", "RTG klatki piersiowej boczne"),
        ("PerformedProcedureStepDescription", "procedure step description", "ОГК, боковая проекция"),
        ("AcquisitionDeviceProcessingDescription", "processing description", "CHESTLAT"),
        ("AcquisitionDeviceProcessingDescription", "processing description", "胸部 側面 R→L"),
        ("BodyPartExamined", "body part", "CHEST LAT"),
    ],
)
def test_lateral_view_of_which_only_a_description_says_so_is_rejected(name, source, text):
    elements = {**SILENT, "SpecificCharacterSet": "ISO_IR 192", name: text}
    expected = f"a lateral view by its {source}, the model reads frontal ones"
    assert detail_of(dicom_file(PICTURE, **elements)) == expected
    # Modality and body part are trusted, the view is not.
    assert detail_of(dicom_file(PICTURE, **elements), trust_chest=True) == expected
    # What is said of the image itself goes before what is said of its series.
    assert detail_of(dicom_file(PICTURE, **{**elements, "ViewPosition": "PA"})) is None


@pytest.mark.parametrize(
    "text",
    [
        "Chest PA and lateral",
        "Thorax p.a./lat.",
        "Tórax frente y perfil",
        "胸部正侧位",
        "Chest left lateral decubitus",
        "Bilateral pneumonia?",
        "Latex allergy, chest a.p.",
        "Plates, collateral",
    ],
)
def test_description_of_more_than_a_lateral_view_rejects_nothing(text):
    data = dicom_file(PICTURE, **SILENT, SpecificCharacterSet="ISO_IR 192", SeriesDescription=text)
    assert detail_of(data) is None


def test_orientation_decides_where_neither_view_nor_description_does():
    for position in ("", "UNKNOWN", "STANDING"):
        data = dicom_file(
            PICTURE, ViewPosition=position, PatientOrientation=["A", "F"], SeriesDescription="Chest"
        )
        assert detail_of(data) == "a lateral view by its patient orientation, the model reads frontal ones"
        frontal = dicom_file(PICTURE, ViewPosition=position, PatientOrientation=["L", "F"])
        assert detail_of(frontal) is None


def test_views_are_known_in_many_languages():
    for text in (
        *(
            "Lateral izquierda",
            "latérale",
            "X-thorax dwars",
            "akciğer yan",
            "πλάγια θώρακος",
            "侧位片",
            "흉부 측면",
            "LAT1",
        ),
        *("Thorax seitl.", "hrudník bočný", "R-LAT", "latero-laterale", "thoraxlat"),
    ):
        assert is_lateral(fold(text)), text
        assert not is_frontal(fold(text)), text
    for text in ("Thorax P.A.", "chest P→A", "прямая проекция", "正面", "thorax de face", "CHESTPA", "A-P"):
        assert is_frontal(fold(text)), text
        assert not is_lateral(fold(text)), text
