"""One row for each image that is still in its archive: the newest."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.table import scan
from pneumonia_core.storage.files import open_file, write_stream
from pneumonia_core.storage.location import Location
from pneumonia_core.system.scratch import ScratchFolder, open_duckdb

# What can be written: by the end of the file's name.
FORMATS: Final = (".parquet", ".csv")
GONE_SCHEMA: Final = pa.schema([("image_uri", pa.string()), ("archive", pa.string())])
_MEMORY_MB: Final = 1000
_ROWS_AT_ONCE: Final = 65_536
_NEWEST: Final = """
    SELECT * EXCLUDE (nth) FROM (
        SELECT *, row_number() OVER (PARTITION BY image_uri ORDER BY scored_at DESC, attempt DESC) AS nth
        FROM scores
    ) WHERE nth = 1
"""


def write_latest(table: DeltaTable, gone: Mapping[str, Location], output: Location | None) -> Counter[str]:
    """Write the newest row of each live image, sorted by URI, to a .parquet or .csv file, or only count them.

    `gone` names, for each archive, the gone.parquet of its newest complete run. Returns how many rows have
    each finding or, where rejected, each reason. Raises PneumoniaError where the table cannot be read or the
    file not written.
    """
    try:
        with ScratchFolder("latest") as spill, open_duckdb(spill, _MEMORY_MB) as database:
            rows = _latest_rows(database, table, list(gone.values()))
            counts: Counter[str] = Counter()
            if output is None:
                for _ in _counted(rows, counts):
                    pass
            else:
                _write(output, rows.schema, _counted(rows, counts))
            return counts
    except (duckdb.Error, OSError) as error:
        action = "read" if output is None else f"read, or not written to {output.uri}"
        raise PneumoniaError(
            f"the rows of {table.table_uri} could not be {action} ({reading_error_text(error)}). Fix that "
            "and run the "
            "same command again."
        ) from error


def _latest_rows(
    database: duckdb.DuckDBPyConnection, table: DeltaTable, gone: Sequence[Location]
) -> pa.RecordBatchReader:
    database.register("scores", scan(table))
    database.register("gone", _read_gone(gone))
    # An archive's list counts for that archive alone: an image may have moved to another.
    query = f"SELECT * FROM ({_NEWEST}) ANTI JOIN gone USING (image_uri, archive) ORDER BY image_uri"
    return database.sql(query).to_arrow_reader(_ROWS_AT_ONCE)


def _read_gone(lists: Sequence[Location]) -> pa.RecordBatchReader:
    def read() -> Iterator[pa.RecordBatch]:
        # Several archives of one run share its list.
        for location in dict.fromkeys(lists):
            with open_file(location) as file:
                yield from pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=GONE_SCHEMA.names)

    return pa.RecordBatchReader.from_batches(GONE_SCHEMA, read())


def _counted(rows: pa.RecordBatchReader, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        for name in ("finding", "reject_reason"):
            for entry in batch[name].drop_null().value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
        yield batch


def _write(output: Location, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
    make_writer = pq.ParquetWriter if output.name.endswith(".parquet") else pacsv.CSVWriter
    with write_stream(output) as stream, make_writer(stream, schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
