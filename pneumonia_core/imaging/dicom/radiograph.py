"""DICOM radiographs: which are refused, what is known of the source, and the grey picture.

Where a file's tags decide, a RejectedImage with a fixed text is raised, which never holds a value of the
file. Other exceptions of decoders may; `decode.read_image` turns them into rejections.
"""

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.contract import Source
from pneumonia_core.imaging.dicom import tags
from pneumonia_core.imaging.dicom.chest import check_chest_radiograph
from pneumonia_core.imaging.dicom.grayscale import to_grayscale
from pneumonia_core.imaging.dicom.header import Header, read_header
from pneumonia_core.imaging.dicom.pixels import PHOTOMETRIC_INTERPRETATIONS, read_layout, read_stored
from pneumonia_core.imaging.study_key import study_key

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
        study_key=study_key(header.text(tags.SOP_INSTANCE)),
        age_years=age_years(header),
        sex=sex if sex in _SEXES else None,
    )
    return header, source


def read_grayscale(header: Header, trust_chest: bool = False) -> npt.NDArray[np.uint8]:
    """The radiograph as grey uint8 [H, W].

    With `trust_chest`, neither its modality nor its body part is judged. Raises RejectedImage, and whatever
    decoders raise on hostile bytes.
    """
    if any(tag in header for tag in tags.FLOAT_PIXELS):
        raise RejectedImage("unsupported", "floating-point pixels have no known black and white")
    if not header.raw(tags.PIXEL_DATA):
        raise RejectedImage("no_pixels", "a DICOM object without a picture")
    check_chest_radiograph(header, trust_chest)
    layout = read_layout(header)
    return to_grayscale(read_stored(header, layout), header, layout)


def age_years(header: Header) -> float | None:
    """The patient's age in years, from `62`, `062Y`, `018M`, `03W`, `010D` and the like; None without a valid
    age."""
    match = _AGE.fullmatch(header.text(tags.PATIENT_AGE) or "")
    return int(match[1]) / _PER_YEAR[match[2][:1]] if match else None
