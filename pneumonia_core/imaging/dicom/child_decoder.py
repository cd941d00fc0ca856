"""Compressed DICOM pixels, decompressed in a process of their own: hostile ones abort gdcm, others make it
and its like write on stderr."""

import atexit
import queue
from typing import Any, Final

import numpy as np

from pneumonia_core.errors import RejectedImage
from pneumonia_core.system.child_process import Child, serve

LIMIT_S: Final = 30
_MODULE: Final = "pneumonia_core.imaging.dicom.child_decoder"
_CORRUPT: Final = ("corrupt", "the picture's data contradict its format")
_idle: Final[queue.SimpleQueue[Child]] = queue.SimpleQueue()


def decompress(data: bytes, syntax: str, plugin: str, options: dict[str, Any]) -> np.ndarray:
    """Stored values [H, W] or [H, W, samples] of encapsulated pixel data; `options` are those of pydicom's
    `Decoder.as_array`. May be called from several threads. Raises RejectedImage."""
    question = (data, syntax, plugin, options)
    try:
        answer = _asked(question)
    except EOFError:
        # gdcm 3.2 under pydicom 3.0 aborts on about one good picture in 10,000 (measured): not on it again.
        try:
            answer = _asked(question)
        except EOFError:
            raise RejectedImage("crashed_decoder", "the decompressing process died on it, twice") from None
    if isinstance(answer, np.ndarray):
        return answer
    raise RejectedImage(*answer)


def decode_stored(data: bytes, syntax: str, plugin: str, options: dict[str, Any]) -> np.ndarray:
    """As `decompress`, in this process. Raises whatever a decoder raises on hostile bytes."""
    from pydicom.pixels.decoders.base import get_decoder

    return get_decoder(syntax).as_array(data, index=0, decoding_plugin=plugin, **options)[0]


def _asked(question: object) -> Any:
    try:
        child = _idle.get_nowait()
    except queue.Empty:
        child = _started()
    try:
        answer = child.ask(question, LIMIT_S)
    except TimeoutError:
        child.kill()
        raise RejectedImage("too_slow", f"not decompressed within {LIMIT_S} s") from None
    except EOFError:
        child.kill()
        raise
    _idle.put(child)
    return answer


def _started() -> Child:
    try:
        return Child(_MODULE)
    except (OSError, EOFError, TimeoutError):
        raise RejectedImage("crashed_decoder", "the decompressing process did not start") from None


@atexit.register
def _end_children() -> None:
    while not _idle.empty():
        _idle.get_nowait().kill()


def _answer(question: tuple[bytes, str, str, dict[str, Any]]) -> np.ndarray | tuple[str, str]:
    try:
        return decode_stored(*question)
    except MemoryError:
        return "crashed_decoder", "it takes more memory than a decoder gets"
    except BaseException as error:  # noqa: BLE001 - a decoder written in Rust panics with no Exception
        return (
            _CORRUPT
            if "truncated" not in str(error)
            else ("truncated", "the file ends before the picture does")
        )


if __name__ == "__main__":
    serve(_answer, LIMIT_S)
