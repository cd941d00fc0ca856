"""Decoded images as a block of Ray Data, which a decoding task sends to the actor that scores them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
import pyarrow as pa

from pneumonia_core.errors import Rejection
from pneumonia_core.imaging.contract import Decoded, Source
from pneumonia_core.runs.inventory import CHUNK_SCHEMA

_SOURCE: Final = pa.struct(
    {
        "format": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "mode": pa.string(),
        "study_key": pa.string(),
        "age_years": pa.float64(),
        "sha256": pa.string(),
        "size_bytes": pa.int64(),
    }
)
_REJECTION: Final = pa.struct({"reason": pa.string(), "detail": pa.string()})


def to_block(chunk: int, rows: pa.Table, images: Sequence[Decoded], size: int) -> pa.Table:
    """The inventory `rows` of a chunk with their images.

    Pixels are fixed-size binary [size * size], null where an image was rejected.
    """
    pixels = np.zeros((len(images), size * size), np.uint8)
    for number, image in enumerate(images):
        if image.pixels is not None:
            pixels[number] = image.pixels.ravel()
    present = pa.array([image.pixels is not None for image in images])
    column = pa.Array.from_buffers(
        pa.binary(size * size), len(images), [present.buffers()[1], pa.py_buffer(pixels)]
    )
    return pa.table(
        {
            **{name: rows[name] for name in CHUNK_SCHEMA.names},
            "chunk": pa.repeat(chunk, len(images)),
            "source": pa.array([asdict(image.source) for image in images], _SOURCE),
            "rejection": pa.array(
                [image.rejection and asdict(image.rejection) for image in images], _REJECTION
            ),
            "pixels": column,
        }
    )


def from_block(block: pa.Table, size: int) -> Iterator[Decoded]:
    """The images of a block, in order; their pixels uint8 [size, size] are views of it."""
    pixels = block["pixels"]
    rows = zip(block["source"].to_pylist(), block["rejection"].to_pylist(), strict=True)
    for number, (source, rejection) in enumerate(rows):
        if rejection is not None:
            yield Decoded(None, Source(**source), Rejection(**rejection))
        else:
            square = np.frombuffer(pixels[number].as_buffer(), np.uint8).reshape(size, size)
            yield Decoded(square, Source(**source))
