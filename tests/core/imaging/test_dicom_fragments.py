"""The end of a compressed DICOM picture: whatever is found in place of its delimiter."""

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEGBaseline8Bit
from support.images.decoded import JPEG_TOLERANCE, PICTURE, difference, reason_of
from support.images.dicom_files import LOSSLESS, dicom_file
from support.images.pictures import encoded

SYNTAXES = {
    **{name: LOSSLESS[name] for name in ("rle", "jpeg lossless", "jpeg-ls", "jpeg 2000")},
    "jpeg": JPEGBaseline8Bit,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_picture_is_read_without_its_delimiter_or_with_zeros_after_it(syntax):
    data = dicom_file(PICTURE, 8, syntax=SYNTAXES[syntax])
    assert data.endswith(b"\xfe\xff\xdd\xe0" + bytes(4))
    # No delimiter, part of it, a block of zeros in its place or after it.
    for ending in (data[:-8], data[:-5], data[:-8] + bytes(1000), data + bytes(511)):
        assert difference(ending) <= JPEG_TOLERANCE


def test_picture_cut_between_its_fragments_is_truncated():
    jpeg = encoded(Image.fromarray(PICTURE), "JPEG", quality=97)
    data = dicom_file(PICTURE, syntax=JPEGBaseline8Bit, PixelData=encapsulate([jpeg], fragments_per_frame=3))
    assert difference(data) <= JPEG_TOLERANCE
    assert difference(data[:-8]) <= JPEG_TOLERANCE
    last = data.rindex(b"\xfe\xff\x00\xe0")
    for cut in (data[:last], data[:last] + bytes(100), data[: last + 6], data[:-20]):
        assert reason_of(cut) == "truncated"


def test_icon_beside_a_compressed_picture_is_not_taken_for_it():
    icon = Dataset()
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
    icon.Rows = icon.Columns = 64
    icon.BitsAllocated = icon.BitsStored = 8
    icon.HighBit, icon.PixelRepresentation = 7, 0
    icon.PixelData = encapsulate([encoded(Image.fromarray(np.zeros((64, 64), np.uint8)), "JPEG")])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    data = dicom_file(PICTURE, syntax=JPEGBaseline8Bit, IconImageSequence=Sequence([icon]))
    assert data.count(b"\xfe\xff\xdd\xe0") >= 2
    for ending in (data, data[:-8]):
        assert difference(ending) <= JPEG_TOLERANCE
