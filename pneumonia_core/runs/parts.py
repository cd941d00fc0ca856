"""Parts: the rows of one chunk, written whole, and their merging into the table's data files."""

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pneumonia_core.drift import BINS
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.results.commit import DataFile
from pneumonia_core.results.schema import ADDED_COLUMNS, FILE_SCHEMA
from pneumonia_core.results.table import with_carried
from pneumonia_core.runs.inventory import ChunkRef, read_chunk
from pneumonia_core.storage.files import file_size, list_names, read_bytes, write_bytes, write_stream
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint


class ConservationError(PneumoniaError):
    """Rows of the inventory and of the parts differ: nothing is committed."""


@dataclass(frozen=True)
class Merged:
    """One file for the table, and the counts of its rows."""

    file: DataFile
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    out_of_domain: int = 0
    bytes_read: int = 0
    score_histogram: tuple[int, ...] = (0,) * BINS


def part_location(run_folder: Location, chunk: int) -> Location:
    """Where the part of a chunk is."""
    return run_folder.child("parts").child(f"{chunk:08d}.parquet")


def write_part(run_folder: Location, chunk: int, table: pa.Table) -> None:
    """Write the part of a chunk, whole or not at all. A chunk that has a part is done."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(part_location(run_folder, chunk), buffer.getvalue())


def done_chunks(run_folder: Location) -> set[int]:
    """The chunks that have a part."""
    names = list_names(run_folder.child("parts"))
    return {int(name.removesuffix(".parquet")) for name in names if name.endswith(".parquet")}


def merge_parts(
    run_folder: Location,
    scores: Location,
    path: str,
    chunks: Sequence[ChunkRef],
    superseded: frozenset[int] = frozenset(),
) -> Merged:
    """Check the parts of some chunks against the inventory and write them as one file of the table.

    `path` is relative to `scores`. Rows whose ids are in `superseded` are left out: another run has committed
    them. Raises ConservationError, which names missing, repeated and foreign rows.
    """
    tables = []
    for chunk in chunks:
        table = _read_part(run_folder, chunk.chunk)
        _check_conserved(chunk.chunk, read_chunk(run_folder, chunk), table)
        tables.append(table)
    whole = pa.concat_tables(tables)
    if superseded:
        whole = whole.filter(pc.invert(pc.is_in(whole["row_id"], pa.array(superseded, pa.int64()))))
    rows = with_carried(whole.select(FILE_SCHEMA.names).cast(FILE_SCHEMA), whole["carried"])
    location = scores.child(path)
    failpoint("merge.before", path)
    with write_stream(location) as stream:
        pq.write_table(rows, stream, compression="zstd", row_group_size=128 * 1024)
    failpoint("merge.after", path)
    size = file_size(location)
    nulls = {name: rows[name].null_count for name in rows.column_names}
    return Merged(
        DataFile(path, size, rows.num_rows, nulls, int(time.time() * 1000)),
        statuses=_counts(rows["status"]),
        reasons=_counts(rows["reject_reason"]),
        findings=_counts(rows["finding"]),
        out_of_domain=_out_of_domain(rows["in_domain"]),
        bytes_read=pc.sum(rows["size_bytes"]).as_py() or 0,
        score_histogram=_score_histogram(rows["p_pneumonia"]),
    )


def _read_part(run_folder: Location, chunk: int) -> pa.Table:
    location = part_location(run_folder, chunk)
    try:
        table = pq.read_table(pa.BufferReader(read_bytes(location)))
    except FileNotFoundError as error:
        raise ConservationError(
            f"the part of chunk {chunk} is gone: {location.uri}.", Remedy.RUN_AGAIN
        ) from error
    except pa.ArrowInvalid as error:
        raise ConservationError(
            f"{location.uri} is damaged. Nothing of this run was committed. Delete this file.",
            Remedy.RUN_AGAIN,
        ) from error
    for name in ADDED_COLUMNS:
        if name not in table.schema.names:
            # An earlier version wrote the part.
            column = PART_SCHEMA.field(name)
            table = table.append_column(column, pa.nulls(len(table), column.type))
    if sorted(table.schema.names) != sorted(PART_SCHEMA.names):
        raise ConservationError(f"{location.uri} was written by another version.", Remedy.START_OVER)
    return table.select(PART_SCHEMA.names)


def _check_conserved(chunk: int, listed: pa.Table, part: pa.Table) -> None:
    if part["row_id"].equals(listed["row_id"]) and part["image_uri"].equals(listed["image_uri"]):
        return
    expected, actual = set(listed["row_id"].to_pylist()), part["row_id"].to_pylist()
    missing = sorted(expected - set(actual))
    foreign = sorted(set(actual) - expected)
    repeated = sorted(row for row, count in Counter(actual).items() if count > 1)
    raise ConservationError(
        f"the rows of chunk {chunk} are not those listed: {len(missing)} missing {missing[:5]}, "
        f"{len(foreign)} foreign {foreign[:5]}, {len(repeated)} repeated {repeated[:5]}. "
        f"Nothing of this run was committed. Delete the part {chunk:08d}.parquet.",
        Remedy.RUN_AGAIN,
    )


def _counts(column: pa.ChunkedArray) -> Counter[str]:
    return Counter(
        {entry["values"]: entry["counts"] for entry in column.drop_null().value_counts().to_pylist()}
    )


def _out_of_domain(in_domain: pa.ChunkedArray) -> int:
    """How many images are out of the training domain."""
    return int(pc.sum(pc.invert(in_domain)).as_py() or 0)


def _score_histogram(p_pneumonia: pa.ChunkedArray) -> tuple[int, ...]:
    # A sum of two float32 may be a little above 1.
    scores = np.clip(p_pneumonia.drop_null().to_numpy(), 0.0, 1.0)
    return tuple(int(number) for number in np.histogram(scores, BINS, (0.0, 1.0))[0])


# A part also carries the row's number in the run's inventory, for the conservation law.
# `carried` becomes columns of the table when the parts are merged.
PART_SCHEMA: Final = pa.schema(
    [pa.field("row_id", pa.int64(), nullable=False), *FILE_SCHEMA, pa.field("carried", pa.string())]
)
