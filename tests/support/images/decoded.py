"""The test picture of the DICOM files, and how far a decoded file is from it."""

import io

import numpy as np
import pytest
from PIL import Image

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.decode import decode
from support.images.dicom_files import exposed_phantom

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
    """Mean absolute difference in grey levels between the decoded file and the reference, [SIDE, SIDE]."""
    return float(np.abs(decode(data, SIDE) - reference).mean())


def reason_of(data: bytes) -> str:
    """The reason for which `decode` rejects the file; the test fails if it decodes."""
    with pytest.raises(RejectedImage) as caught:
        decode(data, SIDE)
    return caught.value.reason
