"""DICOM radiographs: which are refused, what is known of the source, and the grey picture.

Where a file's tags decide, a RejectedImage with a fixed text is raised, which never holds a value of the
file. Other exceptions of decoders may; `decode.read_image` turns them into rejections.
"""

import hashlib
import hmac
import os
import re
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.contract import Source
from pneumonia_core.imaging.dicom import header as tags
from pneumonia_core.imaging.dicom.grayscale import to_grayscale
from pneumonia_core.imaging.dicom.header import Header, read_header
from pneumonia_core.imaging.dicom.pixels import PHOTOMETRIC_INTERPRETATIONS, read_layout, read_stored

HASH_KEY_VARIABLE: Final = "PNEUMONIA_HASH_KEY"
_RADIOGRAPHS: Final = ("CR", "DX")
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
# Computed radiography, digital X-ray for presentation, secondary capture: other image classes are refused.
_RADIOGRAPH_CLASSES: Final = (f"{_STORAGE}1", f"{_STORAGE}1.1", f"{_STORAGE}7")
_RAW_CLASS: Final = f"{_STORAGE}1.1.1"
_CHEST: Final = re.compile(r"CHE?ST|THORA[XC]|THX|TORAX|TÓRAX|TORACE|TORSO|BRUST|PEITO|LUNG|PULMO|POUMON")
_SPINE: Final = re.compile(r"SPIN|VERTEB|COLUMN")
_UNSPECIFIED: Final = (
    "UNKNOWN",
    "UNDEFINED",
    "UNSPECIFIED",
    "OTHER",
    "NONE",
    "N/A",
    "NA",
    "DEFAULT",
    "PORTABLE",
)
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
_LATERAL_WORDS: Final = frozenset(
    {"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "LATL", "LATR", "LLO", "RLO"}
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
# The standard has `062Y`; others write `62`, `62.0`, `62 YRS`, `18 MONTHS`.
_AGE: Final = re.compile(
    r"0*(\d{1,3})(?:\.0*)?\s*(|Y|YO|YRS?|YEARS?|M|MO|MTHS?|MONTHS?|W|WKS?|WEEKS?|D|DAYS?)"
)
# Female, male, other (PS3.3 C.7.1.1).
_SEXES: Final = ("F", "M", "O")
_PER_YEAR: Final = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}


def open_radiograph(data: bytes) -> tuple[Header, Source]:
    """The header of a DICOM file and what it says of the source. Raises RejectedImage."""
    header = read_header(data)
    width, height = header.integer(tags.COLUMNS, 0), header.integer(tags.ROWS, 0)
    photometric, sex = header.text(tags.PHOTOMETRIC), header.text(tags.PATIENT_SEX)
    source = Source(
        format="dicom",
        width=width or None,
        height=height or None,
        # From a closed list: any text may stand in a tag.
        mode=photometric if photometric in PHOTOMETRIC_INTERPRETATIONS else None,
        study_key=study_key(header),
        age_years=age_years(header),
        sex=sex if sex in _SEXES else None,
    )
    return header, source


def read_grayscale(header: Header) -> npt.NDArray[np.uint8]:
    """The radiograph as grey uint8 [H, W].

    Raises RejectedImage, and whatever decoders raise on hostile bytes.
    """
    if any(tag in header for tag in tags.FLOAT_PIXELS):
        raise RejectedImage("unsupported", "floating-point pixels have no known black and white")
    if not header.raw(tags.PIXEL_DATA):
        raise RejectedImage("no_pixels", "a DICOM object without a picture")
    check_chest_radiograph(header)
    layout = read_layout(header)
    return to_grayscale(read_stored(header, layout), header, layout)


def study_key(header: Header) -> str | None:
    """HMAC-SHA-256 in hex of the SOPInstanceUID under the key in the environment variable PNEUMONIA_HASH_KEY.

    None without key or identifier. Workers of a local Ray inherit the variable; on a cluster it comes from a
    secret mounted into every node's environment, never from arguments or runtime environments.
    """
    key, uid = os.environ.get(HASH_KEY_VARIABLE), header.text(tags.SOP_INSTANCE)
    return hmac.new(os.fsencode(key), uid.encode(), hashlib.sha256).hexdigest() if key and uid else None


def age_years(header: Header) -> float | None:
    """The patient's age in years, from `62`, `062Y`, `018M`, `03W`, `010D` and the like; None without a valid
    age."""
    match = _AGE.fullmatch(header.text(tags.PATIENT_AGE) or "")
    return int(match[1]) / _PER_YEAR[match[2][:1]] if match else None


def check_chest_radiograph(header: Header) -> None:
    """Raise RejectedImage where a tag contradicts a frontal chest radiograph; a missing tag does not."""
    modality, sop_class = header.text(tags.MODALITY), header.text(tags.SOP_CLASS)
    if header.text(tags.PRESENTATION_INTENT) == "FOR PROCESSING" or sop_class == _RAW_CLASS:
        raise RejectedImage(
            "not_chest_radiograph", "raw detector values (FOR PROCESSING), not a picture to read"
        )
    other_class = (sop_class or "").startswith(_STORAGE) and sop_class not in _RADIOGRAPH_CLASSES
    if (modality is not None and modality not in _RADIOGRAPHS) or other_class:
        raise RejectedImage("not_chest_radiograph", "its modality is neither CR nor DX")
    if not _may_show_chest(header):
        raise RejectedImage("not_chest_radiograph", "the body part that it names is not the chest")
    if _is_lateral(header):
        raise RejectedImage("not_chest_radiograph", "a lateral view, the model reads frontal ones")


def _may_show_chest(header: Header) -> bool:
    part = header.text(tags.BODY_PART)
    if part is None or part in _UNSPECIFIED:
        region = header.first_item(tags.ANATOMIC_REGION)
        if region is None or region.text(tags.CODE_VALUE) in _CHEST_CODES:
            return True
        part = region.text(tags.CODE_MEANING)
    return part is None or (_CHEST.search(part) is not None and _SPINE.search(part) is None)


def _is_lateral(header: Header) -> bool:
    position, code = header.text(tags.VIEW_POSITION), header.first_item(tags.VIEW_CODE)
    if position is None and code is None:
        return _is_side_view(header.texts(tags.PATIENT_ORIENTATION))
    by_code = code is not None and (
        code.text(tags.CODE_VALUE) in _LATERAL_CODES or _says_lateral(code.text(tags.CODE_MEANING))
    )
    return by_code or _says_lateral(position)


def _says_lateral(view: str | None) -> bool:
    # A patient who lies on the side (decubitus) is still seen from the front.
    words = re.findall(r"[A-Z]+", view or "")
    return not _LATERAL_WORDS.isdisjoint(words) and not any(word.startswith("DECUB") for word in words)


def _is_side_view(orientation: list[str]) -> bool:
    """Whether rows or columns run to the patient's front (A) or back (P) (PS3.3 C.7.6.1.1.1)."""
    known = len(orientation) == 2 and all(re.fullmatch(r"[LRAPHF]{1,3}", way) for way in orientation)
    return known and any(way[0] in "AP" for way in orientation)
