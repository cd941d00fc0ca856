"""Decoded images as a block of Ray Data: how they travel from a decoding task to the actor that scores them."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from pneumonia_core.imaging.contract import Source
from pneumonia_core.runs.inventory import CHUNK_SCHEMA
from pneumonia_core.scoring.chunk import Decoded

_SOURCE: Final = pa.struct(
    {
        "format": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "study_key": pa.string(),
        "age_years": pa.float64(),
    }
)
_FACTS: Final = pa.struct(
    {
        "sha256": pa.string(),
        "size_bytes": pa.int64(),
        "stage": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def to_block(chunk: int, rows: pa.Table, images: Sequence[Decoded], size: int) -> pa.Table:
    """The inventory `rows` of a chunk with their images: pixels are fixed-size binary [size * size], null
    where an image was rejected."""
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
            "source": pa.array([_values(image.source, _SOURCE) for image in images], _SOURCE),
            "facts": pa.array([_values(image, _FACTS) for image in images], _FACTS),
            "pixels": column,
        }
    )


def from_block(block: pa.Table, size: int) -> Iterator[Decoded]:
    """The images of a block, in order; their pixels uint8 [size, size] are views of it."""
    pixels = block["pixels"]
    both = zip(block["source"].to_pylist(), block["facts"].to_pylist(), strict=True)
    for number, (source, facts) in enumerate(both):
        picture = None
        if facts["reason"] is None:
            picture = np.frombuffer(pixels[number].as_buffer(), np.uint8).reshape(size, size)
        yield Decoded(source=Source(**source), pixels=picture, **facts)


def _values(thing: object, kind: pa.StructType) -> dict[str, object]:
    return {field.name: getattr(thing, field.name) for field in kind}
