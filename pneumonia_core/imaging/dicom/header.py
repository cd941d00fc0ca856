"""The few elements of a DICOM file that scoring needs, as raw bytes.

Elements that name a patient are never parsed.
"""

import io
import logging
import types
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom.misc
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import data_element_generator, read_sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pneumonia_core.errors import RejectedImage
from pneumonia_core.imaging.dicom import tags
from pneumonia_core.imaging.dicom.character_sets import decodings
from pneumonia_core.imaging.dicom.fragments import UNDEFINED_LENGTH, read_fragments
from pneumonia_core.imaging.dicom.words import fold
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES

_WANTED: Final[list[BaseTag | int]] = [BaseTag(tag) for tag in tags.WANTED]
_BINARY: Final = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8", "OW": "u2"}
# A radiograph has about a hundred elements; a file with millions of empty ones would only cost time.
_MAX_READS: Final = 100_000


def _silence_pydicom() -> None:
    """Keep values of a file, which may name a patient, out of pydicom's warnings and log records.

    For the whole process: `warnings.catch_warnings` is not safe among threads, and every warning of pydicom
    passes through the one module that is replaced here.
    """
    pydicom.misc.warnings = types.SimpleNamespace(warn=lambda *_, **__: None)  # type: ignore[assignment]
    logger = logging.getLogger("pydicom")
    logger.setLevel(logging.CRITICAL + 1)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


_silence_pydicom()


@dataclass(frozen=True)
class Header:
    """Elements by tag, not yet interpreted. A missing or malformed element reads as None or as no values."""

    elements: Mapping[int, RawDataElement | DataElement]
    transfer_syntax: str
    little_endian: bool

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def raw(self, tag: int) -> bytes:
        value = self.elements[tag].value if tag in self.elements else None
        return value if isinstance(value, bytes) else b""

    def vr(self, tag: int) -> str | None:
        """The value representation that the file states; None without one."""
        vr = self.elements[tag].VR if tag in self.elements else None
        return None if vr in (None, "UN") else str(vr)

    def texts(self, tag: int) -> list[str]:
        """The first eight values of a text element, upper case, trimmed."""
        values = self.raw(tag)[:1024].decode("latin-1").split("\\", 8)[:8]
        return [value.strip(" \x00\t\r\n").upper() for value in values]

    def text(self, tag: int) -> str | None:
        return self.texts(tag)[0] or None

    def spellings(self, tag: int) -> list[str]:
        """What a text element may say, folded: once where its character set is certain, else in each usual
        one."""
        return [
            fold(text).strip(" \x00\t\r\n")
            for text in decodings(self.raw(tag)[:1024], self.texts(tags.CHARACTER_SET))
        ]

    def numbers(self, tag: int, kind: str) -> list[float]:
        """The first values of a numeric element, at most eight; `kind` is its VR if the file states none."""
        vr = self.vr(tag) or kind
        try:
            if vr in _BINARY:
                item = np.dtype(("<" if self.little_endian else ">") + _BINARY[vr])
                data = self.raw(tag)[: 8 * item.itemsize]
                values = np.frombuffer(data, item, len(data) // item.itemsize).astype(float).tolist()
            else:
                values = [float(value) for value in self.texts(tag) if value]
        except ValueError:
            return []
        return values if np.isfinite(values).all() else []

    def number(self, tag: int, kind: str) -> float | None:
        return next(iter(self.numbers(tag, kind)), None)

    def integer(self, tag: int, default: int, kind: str = "US") -> int:
        number = self.number(tag, kind)
        return default if number is None else int(number)

    def first_item(self, sequence: int) -> "Header | None":
        """The first item of a sequence."""
        element = self.elements.get(sequence)
        if element is None or not element.value:
            return None
        items = element.value
        if isinstance(element, RawDataElement):
            stream = _Stream(items)
            implicit = element.is_implicit_VR
            try:
                items = read_sequence(stream, implicit, self.little_endian, len(items), "iso8859")
            except Exception:  # noqa: BLE001 - a malformed sequence counts as missing
                return None
        if not items or isinstance(items, (bytes, str)):
            return None
        elements = {int(tag): items[0].get_item(tag) for tag in _WANTED if tag in items[0]}
        if tags.CHARACTER_SET in self.elements:
            elements.setdefault(tags.CHARACTER_SET, self.elements[tags.CHARACTER_SET])
        return Header(elements, self.transfer_syntax, self.little_endian)


def read_header(data: bytes) -> Header:
    """The elements of a DICOM file up to its pixel data, with or without the 128-byte preamble.

    Raises RejectedImage: truncated, corrupt, too_slow (too many elements), too_large (deflated beyond the
    limit).
    """
    stream = _Stream(data)
    stream.seek(132 if data[128:132] == b"DICM" else 0)
    meta = _elements(stream, implicit=False, little_endian=True, only_group=2)
    syntax = Header(meta, "", True).text(tags.TRANSFER_SYNTAX) or _guessed_syntax(stream)
    little_endian = syntax != ExplicitVRBigEndian
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _Stream(_inflated(memoryview(data)[stream.tell() :]))
    implicit = _is_implicit(stream, syntax == ImplicitVRLittleEndian)
    return Header(_elements(stream, implicit, little_endian), syntax, little_endian)


class _Stream(io.BytesIO):
    """A file that knows whether an element began and did not end. It can be read at most _MAX_READS times."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.size = len(data)
        self.reads = 0
        self.cut = False

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise OSError
        found = super().read(size)
        # pydicom reads an element's first 8 bytes at once, and takes fewer bytes for the end of the file.
        self.cut |= size == 8 and 0 < len(found) < 8
        return found


def _elements(
    stream: _Stream, implicit: bool, little_endian: bool, only_group: int | None = None
) -> dict[int, RawDataElement | DataElement]:
    at_fragments: list[str | None] = []

    def beyond(tag: BaseTag, vr: str | None, length: int) -> bool:
        if only_group is not None:
            return tag.group != only_group
        if tag == tags.PIXEL_DATA and length == UNDEFINED_LENGTH:
            at_fragments.append(vr)
            return True
        return tag > tags.PIXEL_DATA

    elements: dict[int, RawDataElement | DataElement] = {}
    try:
        for element in data_element_generator(
            stream, implicit, little_endian, stop_when=beyond, specific_tags=_WANTED
        ):
            elements[int(element.tag)] = element
            if element.tag == tags.PIXEL_DATA:
                return elements
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom may raise anything, with values of the file in its text
        if stream.reads > _MAX_READS:
            raise RejectedImage("too_slow", f"more than {_MAX_READS} DICOM elements") from None
        if isinstance(error, EOFError) or stream.cut or stream.tell() >= stream.size:
            raise RejectedImage("truncated", "the file ends before the picture does") from None
        raise RejectedImage("corrupt", "its DICOM elements cannot be read") from None
    short = any(
        isinstance(element, RawDataElement) and len(element.value or b"") < element.length
        for element in elements.values()
    )
    if stream.cut or short or stream.tell() > stream.size:
        raise RejectedImage("truncated", "the file ends before the picture does")
    if at_fragments:
        # The tag and the length, before which the generator stopped, and of explicit ones the VR.
        start = stream.tell() + (8 if implicit else 12)
        value = read_fragments(stream.getbuffer()[start:])
        tag = BaseTag(tags.PIXEL_DATA)
        elements[tags.PIXEL_DATA] = RawDataElement(
            tag, at_fragments[0], UNDEFINED_LENGTH, value, start, implicit, little_endian
        )
    return elements


def _guessed_syntax(stream: _Stream) -> str:
    """The transfer syntax of a file that does not state it.

    The first element's group number tells the byte order.
    """
    start = stream.tell()
    group = stream.read(2)
    stream.seek(start)
    if group == b"\x00\x08":
        return str(ExplicitVRBigEndian)
    return str(ImplicitVRLittleEndian if _is_implicit(stream, True) else ExplicitVRLittleEndian)


def _is_implicit(stream: _Stream, stated: bool) -> bool:
    """Whether the first element has no VR, whatever the transfer syntax says: a VR is two capital letters."""
    start = stream.tell()
    head = stream.read(6)
    stream.seek(start)
    return not head[4:].isalpha() or not head[4:].isupper() if len(head) == 6 else stated


def _inflated(data: memoryview) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, MAX_SOURCE_BYTES)
    except zlib.error:
        raise RejectedImage("corrupt", "its deflated part cannot be inflated") from None
    if inflater.eof:
        return inflated
    if len(inflated) >= MAX_SOURCE_BYTES:
        raise RejectedImage("too_large", f"it inflates to {MAX_SOURCE_BYTES} bytes or more")
    raise RejectedImage("truncated", "the file ends before the picture does")
