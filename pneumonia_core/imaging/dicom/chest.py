"""Whether a DICOM file's tags contradict a frontal chest radiograph, and which of them does.

A rejection names what was found from closed lists, never by the text of a tag, which may name a patient.
"""

import re
from typing import Final

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.dicom import tags
from pneumonia_core.imaging.dicom.header import Header
from pneumonia_core.imaging.dicom.words import (
    CHEST,
    GLAND,
    OTHER_PARTS,
    SPINE,
    STERNUM,
    UNSPECIFIED,
    is_frontal,
    is_lateral,
    is_lying,
)

# What radiographs are called. DICOM has no XR, and RG is its term for scanned films.
_RADIOGRAPHS: Final = ("CR", "DX", "DR", "RG", "XR")
# Modalities of pictures that some program has made of others.
_CONVERTED: Final = ("OT", "SC")
# The closed list of modalities that a rejection names.
_OTHER_MODALITIES: Final = frozenset(
    word
    for line in (
        "AR AU BDUS BI BMD CT DG DMS DOC ECG EPS ES EEG EMG FID GM HC HD IO IVOCT IVUS KER KO LEN",
        "LS MG MR M3D NM OAM OCT OP OPM OPT OPV OSS OT PLAN POS PR PT PX REG RESP RF RTDOSE RTIMAGE",
        "RTPLAN RTSTRUCT SC SEG SM SMR SR SRF STAIN TG US VA XA XC",
    )
    for word in line.split()
)
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# Computed radiography, digital X-ray for presentation, secondary captures of five kinds.
_RADIOGRAPH_CLASSES: Final = frozenset(
    f"{_STORAGE}{number}" for number in ("1", "1.1", "7", "7.1", "7.2", "7.3", "7.4")
)
_CONVERTED_CLASSES: Final = tuple(f"{_STORAGE}7{number}" for number in ("", ".1", ".2", ".3", ".4"))
_RAW_CLASS: Final = f"{_STORAGE}1.1.1"
# Which modality other image classes are of, by the number after _STORAGE.
_CLASS_MODALITIES: Final = {
    **{
        "1.2": "MG",
        "1.2.1": "MG",
        "1.3": "IO",
        "1.3.1": "IO",
        "2": "CT",
        "2.1": "CT",
        "3.1": "US",
        "4": "MR",
    },
    **{"4.1": "MR", "6.1": "US", "12.1": "XA", "12.2": "RF", "20": "NM", "128": "PT", "481.1": "RTIMAGE"},
}
# SNOMED, new and old style: chest, thorax, lung, chest with neck, abdomen or pelvis (PS3.16 CID 4009).
_CHEST_CODES: Final = frozenset(
    [
        "816094009",
        "51185008",
        "43799004",
        "39607008",
        "417437006",
        "416550000",
        "416775004",
        "416319003",
        "416152001",
        "T-D3000",
        "T-D3200",
        "T-28000",
        "R-FAB52",
        "R-FAB53",
        "R-FAB54",
        "R-FAB55",
        "R-FAB56",
    ]
)
# SNOMED, new and old style: lateral, left and right, medial-lateral and its reverse, sagittal (PS3.16 CID
# 4010).
_LATERAL_CODES: Final = frozenset(
    [
        "399067008",
        "399173006",
        "399198007",
        "399352003",
        "399260004",
        "30730003",
        "260427002",
        "399368009",
        "399099002",
        "R-102CD",
        "R-10236",
        "R-10232",
        "R-10228",
        "R-10224",
        "R-40783",
        "R-10226",
    ]
)
# SNOMED, new and old style: antero-posterior and postero-anterior.
_FRONTAL_CODES: Final = frozenset(["399348003", "399173007", "272479007", "R-10206", "R-10214"])
# Where a view may stand in words, the one that speaks of the single image first.
_DESCRIPTIONS: Final = (
    (tags.SERIES_DESCRIPTION, "series description"),
    (tags.PROTOCOL_NAME, "protocol name"),
    (tags.PROCESSING_DESCRIPTION, "processing description"),
    (tags.PROCEDURE_STEP_DESCRIPTION, "procedure step description"),
    (tags.BODY_PART, "body part"),
)


def check_chest_radiograph(header: Header, trust_chest: bool = False) -> None:
    """Raise RejectedImage where a tag contradicts a frontal chest radiograph; a missing tag does not.

    With `trust_chest`, neither modality nor body part is judged.
    """
    if header.text(tags.PRESENTATION_INTENT) == "FOR PROCESSING" or header.text(tags.SOP_CLASS) == _RAW_CLASS:
        raise _no_chest("raw detector values (FOR PROCESSING), not a picture to read")
    if not trust_chest:
        part = _body_part(header)
        if (modality := _other_modality(header, part)) is not None:
            raise _no_chest(f"its modality is {modality}, a radiograph has CR, DX, DR or RG")
        if part not in (None, "chest"):
            raise _no_chest(f"its body part is {part}, the model reads the chest")
    if (source := _lateral_by(header)) is not None:
        raise _no_chest(f"a lateral view by its {source}, the model reads frontal ones")


def _no_chest(detail: str) -> RejectedImage:
    return RejectedImage("not_chest_radiograph", detail)


def _other_modality(header: Header, part: str | None) -> str | None:
    """The modality in a word, unless it is that of a radiograph or unknown."""
    modality, sop_class = header.text(tags.MODALITY), header.text(tags.SOP_CLASS)
    if modality is not None and modality not in _RADIOGRAPHS:
        # What a program has converted is a radiograph where it says that it shows the chest.
        if modality in _CONVERTED and part == "chest" and sop_class in (None, *_CONVERTED_CLASSES):
            return None
        return modality if modality in _OTHER_MODALITIES else "another one"
    if sop_class is None or not sop_class.startswith(_STORAGE) or sop_class in _RADIOGRAPH_CLASSES:
        return None
    return _CLASS_MODALITIES.get(sop_class.removeprefix(_STORAGE), "another one")


def _body_part(header: Header) -> str | None:
    """The body part in an English word; None where the file names none."""
    part = _part_in(header.spellings(tags.BODY_PART))
    if part is not None:
        return part
    region = header.first_item(tags.ANATOMIC_REGION)
    if region is None:
        return None
    if region.text(tags.CODE_VALUE) in _CHEST_CODES:
        return "chest"
    return _part_in(region.spellings(tags.CODE_MEANING))


def _part_in(spellings: list[str]) -> str | None:
    named = [spelling for spelling in spellings if spelling and spelling not in UNSPECIFIED]
    if not named:
        return None
    # Spine, sternum and gland have words for the chest in their names.
    parts = [("spine", SPINE), ("sternum", STERNUM), ("breast", GLAND), ("chest", CHEST), *OTHER_PARTS]
    found = (word for word, pattern in parts if any(pattern.search(spelling) for spelling in named))
    return next(found, "chest" if not _CHEST_CODES.isdisjoint(named) else "another one")


def _lateral_by(header: Header) -> str | None:
    """Which of its tags says that a radiograph is lateral; None where none does."""
    positions, code = header.spellings(tags.VIEW_POSITION), header.first_item(tags.VIEW_CODE)
    meanings = code.spellings(tags.CODE_MEANING) if code is not None else []
    value = code.text(tags.CODE_VALUE) if code is not None else None
    if value in _LATERAL_CODES or any(map(is_lateral, meanings)):
        return "view code"
    if any(map(is_lateral, positions)):
        return "view position"
    if value in _FRONTAL_CODES or any(is_frontal(view) or is_lying(view) for view in (*positions, *meanings)):
        return None
    for tag, name in _DESCRIPTIONS:
        spellings = header.spellings(tag)
        lateral, frontal = any(map(is_lateral, spellings)), any(map(is_frontal, spellings))
        # A description of both speaks of the study.
        if lateral != frontal:
            return name if lateral else None
    return "patient orientation" if _is_side_view(header.texts(tags.PATIENT_ORIENTATION)) else None


def _is_side_view(orientation: list[str]) -> bool:
    """Whether rows or columns run to the patient's front (A) or back (P) (PS3.3 C.7.6.1.1.1)."""
    known = len(orientation) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", way) for way in orientation)
    return known and any(way[0] in "AP" for way in orientation)
