"""The inventory of a run: every listed image and what becomes of it, and the chunks of those to score."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pneumonia_core.archives.entries import SOURCE_FIELDS
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.storage.files import open_file, write_stream
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
        return _inventory_file_name(self.index)

    def chunk_refs(self) -> list[ChunkRef]:
        """The chunks of the shard, in order."""
        starts = range(0, self.to_score, self.chunk_size)
        return [
            ChunkRef(
                self.first_chunk + n,
                _chunk_file_name(self.index, n // CHUNKS_PER_FILE),
                n % CHUNKS_PER_FILE,
                min(self.chunk_size, self.to_score - start),
            )
            for n, start in enumerate(starts)
        ]

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Inventory:
    """What one run has listed: some shards in its folder."""

    run_folder: Location
    shards: Sequence[InventoryShard]


def read_chunk(run_folder: Location, ref: ChunkRef) -> pa.Table:
    """The inventory rows of a chunk, in CHUNK_SCHEMA."""
    with open_file(run_folder.child("chunks").child(ref.file)) as file:
        return pq.ParquetFile(file).read_row_group(ref.row_group)


def read_inventory(
    run_folder: Location, shards: Sequence[InventoryShard], *columns: str
) -> pa.RecordBatchReader:
    """These columns of the inventory, in its order, to be read once in bounded memory."""
    return read_inventories([Inventory(run_folder, shards)], *columns)


def read_inventories(inventories: Sequence[Inventory], *columns: str) -> pa.RecordBatchReader:
    """These columns of several inventories, one after the other, as `read_inventory` gives those of one."""
    schema = pa.schema([INVENTORY_SCHEMA.field(name) for name in columns])

    def read() -> Iterator[pa.RecordBatch]:
        # pyarrow's own data set fails where a bucket's answer breaks off.
        for inventory in inventories:
            for shard in inventory.shards:
                with open_file(inventory.run_folder.child("inventory").child(shard.file)) as file:
                    for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                        yield pa.RecordBatch.from_arrays([batch[name] for name in columns], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, read())


def write_shard(
    run_folder: Location,
    index: int,
    planned: Iterator[pa.Table],
    first_chunk: int,
    chunk_size: int,
) -> InventoryShard:
    """Write a shard's inventory file and its chunk files, in one pass over its rows.

    `planned` are tables of INVENTORY_SCHEMA. They are read once and not kept.
    """
    counts: Counter[str] = Counter()
    location = run_folder.child("inventory").child(_inventory_file_name(index))
    with (
        write_stream(location) as stream,
        pq.ParquetWriter(stream, INVENTORY_SCHEMA, compression="zstd") as inventory,
    ):
        chunks = _in_chunks(_rows_to_score(planned, inventory, counts), chunk_size)
        for number in itertools.count():
            if (first := next(chunks, None)) is None:
                break
            rest = itertools.islice(chunks, CHUNKS_PER_FILE - 1)
            _write_chunks(run_folder, _chunk_file_name(index, number), itertools.chain([first], rest))
    return InventoryShard(
        index=index,
        listed=sum(counts.values()),
        to_score=counts["score"],
        unchanged=counts["unchanged"],
        deferred=counts["deferred"],
        first_chunk=first_chunk,
        chunk_size=chunk_size,
    )


def _rows_to_score(
    planned: Iterator[pa.Table], inventory: pq.ParquetWriter, counts: Counter[str]
) -> Iterator[pa.Table]:
    """The rows to score, in CHUNK_SCHEMA. Writes and counts all rows on the way."""
    for table in planned:
        inventory.write_table(table)
        disposition = table["disposition"]
        counts.update({entry["values"]: entry["counts"] for entry in disposition.value_counts().to_pylist()})
        yield table.filter(pc.equal(disposition, "score")).select(CHUNK_SCHEMA.names)


def _in_chunks(tables: Iterator[pa.Table], chunk_size: int) -> Iterator[pa.Table]:
    """The rows of all tables, in tables of exactly `chunk_size` rows but for the last."""
    rest = CHUNK_SCHEMA.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while rest.num_rows >= chunk_size:
            yield rest.slice(0, chunk_size)
            rest = rest.slice(chunk_size)
        rest = rest.combine_chunks()
    if rest.num_rows:
        yield rest


def _write_chunks(run_folder: Location, name: str, chunks: Iterable[pa.Table]) -> None:
    """Write one chunk file: each chunk is a row group."""
    with (
        write_stream(run_folder.child("chunks").child(name)) as stream,
        pq.ParquetWriter(stream, CHUNK_SCHEMA, compression="zstd") as writer,
    ):
        for chunk in chunks:
            writer.write_table(chunk, row_group_size=chunk.num_rows)


def check_inventory(run_folder: Location, shards: Sequence[InventoryShard]) -> None:
    """Raise PneumoniaError unless the inventory numbers its rows from 0 without gap or repeat."""
    rows = 0
    for batch in read_inventory(run_folder, shards, "row_id"):
        expected = np.arange(rows, rows + batch.num_rows)
        if not np.array_equal(batch["row_id"].to_numpy(), expected):
            raise PneumoniaError(
                f"the inventory does not number its rows from {rows} to {expected[-1]} without a gap. "
                "Nothing of this run was committed.",
                Remedy.START_OVER,
            )
        rows += batch.num_rows
    listed = sum(shard.listed for shard in shards)
    if rows != listed:
        raise PneumoniaError(
            f"the inventory has {rows} rows, but {listed} images were listed. Nothing of this run was "
            "committed.",
            Remedy.START_OVER,
        )


def _inventory_file_name(shard: int) -> str:
    return f"{shard:05d}.parquet"


def _chunk_file_name(shard: int, number: int) -> str:
    return f"{shard:05d}-{number:04d}.parquet"
