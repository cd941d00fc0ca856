"""DICOM files made for tests: one picture in any depth, photometric interpretation and transfer syntax."""

import io
from typing import Any, Final

import gdcm
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pneumonia_core.phantoms.radiograph import phantom

DIGITAL_XRAY: Final = "1.2.840.10008.5.1.4.1.1.1.1"
INSTANCE: Final = "1.2.826.0.1.3680043.8.498.1"
LOSSLESS: Final = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg 2000": JPEG2000Lossless,
}
_GDCM_SYNTAX: Final = {
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
}


def exposed_phantom(height: int = 240, width: int = 200) -> np.ndarray:
    """A synthetic radiograph uint8 [H, W] whose 0.5 and 99.5 percentiles are black and white."""
    picture = phantom(1, 7, 3, (height, width)).astype(float)
    low, high = np.quantile(picture, [0.005, 0.995], method="inverted_cdf")
    return np.rint(np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def dicom_file(
    picture: np.ndarray,
    bits: int = 8,
    photometric: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    look: str = "window",
    levels: tuple[int, int] | None = None,
    padded: np.ndarray | None = None,
    signed: bool = False,
    remove: tuple[str, ...] = (),
    preamble: bool = True,
    **elements: Any,
) -> bytes:
    """The bytes of a DX file of a picture uint8 [H, W].

    `levels` are the stored values of its black and its white, by default all that the bits hold; `look` says
    what restores them: a window, a VOI LUT, or nothing. Where `padded` is true there is a Pixel Padding value
    outside the levels. `elements` are set, or removed by `remove`, last.
    """
    low, high = levels or ((-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1))
    dark_to_bright = picture.astype(float) / 255 * (high - low)
    if photometric == "MONOCHROME1":
        dark_to_bright = (high - low) - dark_to_bright
    dtype = np.dtype(("i" if signed else "u") + ("1" if bits <= 8 else "2"))
    stored = np.rint(low + dark_to_bright).astype(dtype)
    data = _patient()
    if padded is not None:
        # Not masked, it would show as white.
        outside = low - 1 if photometric == "MONOCHROME1" else high + 1
        stored[padded] = outside
        data.add_new(0x00280120, "SS" if signed else "US", outside)
    _describe(data, stored, bits, photometric, signed)
    _add_look(data, look, low, high, signed)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = DIGITAL_XRAY
    data.file_meta.MediaStorageSOPInstanceUID = INSTANCE
    data.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    _store(data, stored, syntax)
    for name, value in elements.items():
        setattr(data, name, value)
    for name in remove:
        delattr(data, name)
    return written(data, preamble)


def written(data: Dataset, preamble: bool = True) -> bytes:
    file = io.BytesIO()
    syntax = data.file_meta.TransferSyntaxUID
    if preamble:
        dcmwrite(file, data, enforce_file_format=True)
        return file.getvalue()
    del data.file_meta
    data.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return file.getvalue()


def _patient() -> Dataset:
    data = Dataset()
    data.SOPClassUID = DIGITAL_XRAY
    data.SOPInstanceUID = INSTANCE
    data.Modality = "DX"
    data.PresentationIntentType = "FOR PRESENTATION"
    data.PatientName = "Planted^Patient"
    data.PatientID = "PLANTED-ID-4711"
    data.PatientBirthDate = "19010203"
    data.PatientAge = "018M"
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = "PA"
    data.PatientOrientation = ["L", "F"]
    return data


def _describe(data: Dataset, stored: np.ndarray, bits: int, photometric: str, signed: bool) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = photometric
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = 8 * stored.dtype.itemsize
    data.BitsStored = bits
    data.HighBit = bits - 1
    data.PixelRepresentation = int(signed)


def _add_look(data: Dataset, look: str, low: int, high: int, signed: bool) -> None:
    if look == "window":
        # (x - (c - 0.5)) / (w - 1) + 0.5 is 0 at `low` and 1 at `high`.
        data.WindowCenter = [f"{(low + high) / 2 + 0.5:g}", "7"]
        data.WindowWidth = [f"{high - low + 1:g}", "3"]
    if look == "voi lut":
        item = Dataset()
        entries = high - low + 1
        item.add_new(0x00283002, "SS" if signed else "US", [entries % 65536, low, 16])
        ramp = np.rint(np.linspace(0, 65535, entries)).astype("<u2")
        item.add_new(0x00283006, "US", ramp.tolist())
        if entries > 30_000:  # longer than an explicit US can be
            item.add_new(0x00283006, "OW", ramp.tobytes())
        data.VOILUTSequence = Sequence([item])
        # A window beside a LUT gives way to it.
        data.WindowCenter, data.WindowWidth = "1", "2"


def _store(data: Dataset, stored: np.ndarray, syntax: UID) -> None:
    if syntax == JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(stored).save(file, "JPEG", quality=97)
        data.PixelData = encapsulate([file.getvalue()])
    elif syntax in _GDCM_SYNTAX:
        data.PixelData = encapsulate([_compressed(stored, data.BitsStored, _GDCM_SYNTAX[syntax])])
    elif syntax in (RLELossless, JPEG2000Lossless):
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(syntax, stored, generate_instance_uid=False)
    else:
        order = "<" if syntax.is_little_endian else ">"
        data.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    if data["PixelData"].VR == "OB":
        data["PixelData"].is_undefined_length = True
    elif stored.dtype.itemsize == 1:
        data["PixelData"].VR = "OB"


def _compressed(stored: np.ndarray, bits: int, syntax: int) -> bytes:
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((stored.shape[1], stored.shape[0], 1))
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2)
    )
    allocated = 8 * stored.dtype.itemsize
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, bits, bits - 1, int(stored.dtype.kind == "i")))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    pixels = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    pixels.SetByteStringValue(stored.tobytes())
    image.SetDataElement(pixels)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(image)
    # The filter frees it; freed by Python too, it would abort the process now and then.
    image.thisown = False
    if not change.Change():
        raise RuntimeError("gdcm cannot compress this picture")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
