"""Text of a DICOM file, whose character set is often not the one that it states."""

import contextlib
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes

# What text without a true character set is written in: the alphabets of Western and Eastern Europe, Cyrillic
# (twice), Greek, Turkish, Chinese, Japanese, Korean.
_USUAL: Final = ("latin-1", "cp1250", "cp1251", "cp866", "cp1253", "cp1254", "gb18030", "shift_jis", "euc_kr")
_ESCAPE: Final = b"\x1b"


def decodings(value: bytes, character_set: list[str]) -> list[str]:
    """The texts that the bytes may be: one where they are ASCII or UTF-8, which nothing else looks like."""
    if _ESCAPE not in value:
        with contextlib.suppress(UnicodeDecodeError):
            return [value.decode("utf-8")]
    texts = [text for text in (_stated(value, character_set),) if text is not None]
    for encoding in _USUAL:
        with contextlib.suppress(UnicodeDecodeError):
            texts.append(value.decode(encoding))
    return list(dict.fromkeys(texts))


def _stated(value: bytes, character_set: list[str]) -> str | None:
    try:
        return decode_bytes(value, convert_encodings(list(character_set)), set())
    except (LookupError, UnicodeError, ValueError):
        return None
