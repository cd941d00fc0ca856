"""The inventory of a run: every listed image and what becomes of it, and the chunks of those to score."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.archives.entries import SOURCE_FIELDS
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import open_file
from pneumonia_core.storage.location import Location

# Reading a chunk reads its file's footer, which grows with the row groups: 1.6 ms for 64, 25 ms for 3,000.
CHUNKS_PER_FILE: Final = 64
_ROWS_AT_ONCE: Final = 16_384
CHUNK_SCHEMA: Final = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("archive", pa.string(), nullable=False),
        pa.field("attempt", pa.int16(), nullable=False),
        *SOURCE_FIELDS,
        pa.field("carried", pa.string()),
    ]
)
INVENTORY_SCHEMA: Final = CHUNK_SCHEMA.append(pa.field("disposition", pa.string(), nullable=False))


@dataclass(frozen=True)
class ChunkRef:
    """Where the rows of a chunk are: a row group of one of the run's chunk files."""

    chunk: int
    file: str
    row_group: int
    rows: int


@dataclass(frozen=True)
class InventoryShard:
    """One planned piece of the inventory: listed = to_score + unchanged + deferred."""

    index: int
    listed: int
    to_score: int
    unchanged: int
    deferred: int
    first_chunk: int
    chunk_size: int

    @property
    def file(self) -> str:
        return f"{self.index:05d}.parquet"

    def chunk_refs(self) -> list[ChunkRef]:
        starts = range(0, self.to_score, self.chunk_size)
        return [
            ChunkRef(
                self.first_chunk + n,
                chunk_file_name(self.index, n // CHUNKS_PER_FILE),
                n % CHUNKS_PER_FILE,
                min(self.chunk_size, self.to_score - start),
            )
            for n, start in enumerate(starts)
        ]

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def read_chunk(run_folder: Location, ref: ChunkRef) -> pa.Table:
    """The inventory rows of a chunk, in CHUNK_SCHEMA."""
    with open_file(run_folder.child("chunks").child(ref.file)) as file:
        return pq.ParquetFile(file).read_row_group(ref.row_group)


def read_inventory(
    run_folder: Location, shards: Sequence[InventoryShard], *columns: str
) -> pa.RecordBatchReader:
    """These columns of the inventory, in its order, to be read once in bounded memory."""
    schema = pa.schema([INVENTORY_SCHEMA.field(name) for name in columns])

    def read() -> Iterator[pa.RecordBatch]:
        # pyarrow's own data set fails where a bucket's answer breaks off.
        for shard in shards:
            with open_file(run_folder.child("inventory").child(shard.file)) as file:
                for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                    yield pa.RecordBatch.from_arrays([batch[name] for name in columns], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, read())


def check_inventory(run_folder: Location, shards: Sequence[InventoryShard]) -> None:
    """Raise PneumoniaError unless the inventory numbers its rows from 0 without gap or repeat."""
    rows = 0
    for batch in read_inventory(run_folder, shards, "row_id"):
        expected = np.arange(rows, rows + batch.num_rows)
        if not np.array_equal(batch["row_id"].to_numpy(), expected):
            raise PneumoniaError(
                f"the inventory does not number its rows from {rows} to {expected[-1]} one by one. Nothing was "
                "committed.",
                Remedy.START_OVER,
            )
        rows += batch.num_rows
    listed = sum(shard.listed for shard in shards)
    if rows != listed:
        raise PneumoniaError(
            f"the inventory has {rows} rows, but {listed} images were listed. Nothing was committed.",
            Remedy.START_OVER,
        )


def chunk_file_name(shard: int, number: int) -> str:
    return f"{shard:05d}-{number:04d}.parquet"
