"""Compressed DICOM pixels, decompressed in a child process.

Hostile ones abort gdcm, and several decoders print to stderr.
"""

import atexit
from typing import Any, Final

import numpy as np

from pneumonia_core.errors import RejectedImage, Rejection
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow

LIMIT_S: Final = 30
_CORRUPT: Final = Rejection("corrupt", "the picture's data contradict its format")
_TRUNCATED: Final = Rejection("truncated", "the file ends before the picture does")
_OUT_OF_MEMORY: Final = Rejection("crashed_decoder", "it takes more memory than a decoder gets")


def decode_stored(data: bytes, syntax: str, plugin: str, options: dict[str, Any]) -> np.ndarray:
    """As `decompress`, in this process. Raises whatever a decoder raises on hostile bytes."""
    # pydicom's decoders are imported with the first DICOM file: most archives have none.
    from pydicom.pixels.decoders.base import get_decoder

    return get_decoder(syntax).as_array(data, index=0, decoding_plugin=plugin, **options)[0]


def _answer(request: tuple[bytes, str, str, dict[str, int | str]]) -> np.ndarray | Rejection:
    try:
        return decode_stored(*request)
    except MemoryError:
        return _OUT_OF_MEMORY
    except BaseException as error:  # noqa: BLE001 - a decoder written in Rust panics with no Exception
        return _TRUNCATED if "truncated" in str(error) else _CORRUPT


# One pool for the process: decoding threads share the children, which stay until the process ends.
_children: Final = ChildPool(_answer, LIMIT_S)
atexit.register(_children.close)


def decompress(data: bytes, syntax: str, plugin: str, options: dict[str, int | str]) -> np.ndarray:
    """Stored values [H, W] or [H, W, samples] of encapsulated pixel data.

    `options` are those of pydicom's `Decoder.as_array`. May be called from several threads. Raises
    RejectedImage, and PneumoniaError where no child starts.
    """
    request = (data, syntax, plugin, options)
    answer = _children.ask(request)
    if isinstance(answer, Crashed):
        # gdcm 3.2 under pydicom 3.0 aborts on about one good picture in 10,000 (measured), but not twice.
        answer = _children.ask(request)
    if isinstance(answer, Crashed):
        raise RejectedImage("crashed_decoder", "the decompressing process died on it, twice")
    if isinstance(answer, TooSlow):
        raise RejectedImage("too_slow", f"not decompressed within {LIMIT_S} s")
    if isinstance(answer, Rejection):
        raise RejectedImage(answer.reason, answer.detail)
    return answer
