"""Blocks of Ray Data: a chunk on its way through the pipeline is one row, so that nothing splits it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.scoring.execution.outcomes import Outcome, outcome_table, outcomes
from jobs.scoring.execution.queue import QueueClient, WorkItem
from pneumonia_core.errors import Rejection
from pneumonia_core.imaging.contract import Decoded, Source
from pneumonia_core.runs.inventory import CHUNK_SCHEMA, ChunkRef
from pneumonia_core.runs.outcome.timings import StageSeconds

_ITEM: Final = pa.schema(
    [
        pa.field("chunk", pa.int64()),
        pa.field("file", pa.string()),
        pa.field("row_group", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("avoid", pa.list_(pa.string())),
        pa.field("copy", pa.bool_()),
    ]
)
_SOURCE: Final = pa.struct(
    {
        "format": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "mode": pa.string(),
        "study_key": pa.string(),
        "age_years": pa.float64(),
        "sex": pa.string(),
        "sha256": pa.string(),
        "size_bytes": pa.int64(),
    }
)
# The key of a table's metadata that holds StageSeconds.
_SECONDS: Final = b"seconds"
_REJECTION: Final = pa.struct({"reason": pa.string(), "detail": pa.string()})


def queued_items(_: dict[str, Any], queue: QueueClient) -> Iterator[pa.Table]:
    """The source of the pipeline: a block for each item of the queue, until that is closed.

    It is in this module because its process imports all that is here: no decoder and no engine.
    """
    position = 0
    while (items := queue.take(position)) is not None:
        for item in items:
            yield item_block(item)
        position += len(items)


def item_block(item: WorkItem | None) -> pa.Table:
    """An item of the queue as a row. None, an item that is no longer needed, is a row of nulls."""
    if item is None:
        return pa.Table.from_pylist([{}], schema=_ITEM)
    row = {**vars(item.ref), "avoid": list(item.avoid), "copy": item.copy}
    return pa.Table.from_pylist([row], schema=_ITEM)


def item_of(block: pa.Table) -> WorkItem | None:
    """The item in a block of `item_block`."""
    (row,) = block.select(_ITEM.names).to_pylist()
    if row["chunk"] is None:
        return None
    avoid, copy = tuple(row.pop("avoid")), row.pop("copy")
    return WorkItem(ChunkRef(**row), avoid, copy)


def decoded_block(
    item: WorkItem, rows: pa.Table, images: Sequence[Decoded], size: int, seconds: StageSeconds
) -> pa.Table:
    """A decoded chunk as a row: its item, its inventory `rows` with their images, and the task's seconds.

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
    rejections = [image.rejection and asdict(image.rejection) for image in images]
    table = pa.table(
        {
            **{name: rows[name] for name in CHUNK_SCHEMA.names},
            "source": pa.array([asdict(image.source) for image in images], _SOURCE),
            "rejection": pa.array(rejections, _REJECTION),
            "pixels": column,
        }
    )
    metadata = {_SECONDS: json.dumps(asdict(seconds)).encode()}
    return _with_table(item_block(item), table.replace_schema_metadata(metadata))


def undecoded_block(outcomes: Sequence[Outcome]) -> pa.Table:
    """A row for a chunk that was not decoded, with what the driver learns of it."""
    return _with_table(item_block(None), outcome_table(outcomes))


@dataclass(frozen=True)
class DecodedChunk:
    """A chunk out of a block of `decoded_block`: its item, its inventory rows, its images in their order.

    The images' pixels, uint8 [size, size], are views of the block. `seconds` are those of the task that
    decoded them.
    """

    item: WorkItem
    rows: pa.Table
    images: Iterator[Decoded]
    seconds: StageSeconds


def decoded_of(block: pa.Table, size: int) -> DecodedChunk | list[Outcome]:
    """The decoded chunk in a block, or what came of one that was not decoded."""
    (value,) = block["table"]
    table = pa.ipc.open_stream(value.as_buffer()).read_all()
    item = item_of(block)
    if item is None:
        return outcomes(table)
    seconds = StageSeconds(**json.loads(table.schema.metadata[_SECONDS]))
    return DecodedChunk(item, table.select(CHUNK_SCHEMA.names), _images(table, size), seconds)


def _with_table(row: pa.Table, table: pa.Table) -> pa.Table:
    """The row with a table as a value of its own, in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content = sink.getvalue()
    offsets = pa.py_buffer(np.array([0, content.size], np.int64))
    return row.append_column("table", pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, content]))


def _images(table: pa.Table, size: int) -> Iterator[Decoded]:
    pixels = table["pixels"]
    rows = zip(table["source"].to_pylist(), table["rejection"].to_pylist(), strict=True)
    for number, (source, rejection) in enumerate(rows):
        if rejection is not None:
            yield Decoded(None, Source(**source), Rejection(**rejection))
        else:
            square = np.frombuffer(pixels[number].as_buffer(), np.uint8).reshape(size, size)
            yield Decoded(square, Source(**source))
