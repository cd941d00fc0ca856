"""One row for each image that is still in its archive: the newest of one model."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.table import scan
from pneumonia_core.storage.files import open_file, write_stream
from pneumonia_core.storage.location import Location
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.scratch import ScratchFolder

# What can be written: by the end of the file's name.
FORMATS: Final = (".parquet", ".csv")
GONE_SCHEMA: Final = pa.schema([("image_uri", pa.string()), ("archive", pa.string())])
_MEMORY_MB: Final = 1000
_ROWS_AT_ONCE: Final = 65_536
_NEWEST: Final = """
    SELECT * EXCLUDE (nth) FROM (
        SELECT *, row_number() OVER (PARTITION BY image_uri ORDER BY scored_at DESC, attempt DESC) AS nth
        FROM scores WHERE model_id = $model_id
    ) WHERE nth = 1
"""
# An archive's list counts for that archive alone: an image may have moved to another.
_LIVE: Final = """
    ANTI JOIN (SELECT * FROM listed_as_gone ANTI JOIN back USING (image_uri)) AS gone
    USING (image_uri, archive)
"""


@dataclass(frozen=True)
class Gone:
    """The images that have gone: for each archive, in `lists`, the gone.parquet of the newest run with one.

    `listed_since` gives the URIs of images that later runs have listed again; each call reads them again.
    """

    lists: Mapping[str, Location] = field(default_factory=dict)
    listed_since: Callable[[], pa.RecordBatchReader] | None = None


NOTHING_GONE: Final = Gone()


@dataclass(frozen=True)
class Latest:
    """What was written: how many rows of a model have each finding or, where rejected, each reason.

    `model_id` is None for a table without rows. `of_other_models`: how many live images have no row of this
    model, by the model of their newest row.
    """

    model_id: str | None
    counts: Counter[str]
    of_other_models: Mapping[str, int]


def write_latest(
    table: DeltaTable,
    gone: Gone,
    output: Location | None,
    model_id: str | None = None,
    default_model: str | None = None,
) -> Latest:
    """Write the newest row of a model of each live image, sorted by URI, to a .parquet or .csv file.

    Without an `output` the rows are only counted. Without a `model_id` they are those of `default_model`, or
    of the newest row's model where the table has none of that one. Raises InvalidInput where the table has no
    row of `model_id`, PneumoniaError where the table cannot be read or the file not written.
    """
    try:
        with ScratchFolder("latest") as spill, open_duckdb(spill, _MEMORY_MB) as database:
            newest = _newest_by_model(database, table)
            chosen = _choose_model(table, newest, model_id, default_model)
            others = _of_other_models(database, table, gone, chosen) if len(newest) > 1 else {}
            rows = _latest_rows(database, table, gone, chosen)
            counts: Counter[str] = Counter()
            if output is None:
                for _ in _counted(rows, counts):
                    pass
            else:
                _write(output, rows.schema, _counted(rows, counts))
            return Latest(chosen, counts, others)
    except (duckdb.Error, OSError) as error:
        action = "read" if output is None else f"read, or not written to {output.uri}"
        raise PneumoniaError(
            f"the rows of {table.table_uri} could not be {action} ({reading_error_text(error)}). Fix that "
            "and run the "
            "same command again."
        ) from error


def _choose_model(
    table: DeltaTable,
    newest: Mapping[str, datetime.datetime],
    model_id: str | None,
    default_model: str | None,
) -> str | None:
    """The model whose rows are written; None for a table without rows. `newest`: its newest row, by model."""
    if model_id is not None and model_id not in newest:
        known = f"It has rows of {', '.join(sorted(newest))}." if newest else "It has no rows yet."
        raise InvalidInput(f"{table.table_uri} has no row of the model {model_id}. {known}")
    if model_id is None and default_model in newest:
        return default_model
    return model_id or max(newest, key=lambda model: newest[model], default=None)


def _newest_by_model(database: duckdb.DuckDBPyConnection, table: DeltaTable) -> dict[str, datetime.datetime]:
    """When the newest row of each model was scored (UTC)."""
    database.register("scores", scan(table))
    query = "SELECT model_id, max(scored_at AT TIME ZONE 'UTC') FROM scores GROUP BY model_id"
    return dict(database.execute(query).fetchall())


def _of_other_models(
    database: duckdb.DuckDBPyConnection,
    table: DeltaTable,
    gone: Gone,
    model_id: str | None,
) -> dict[str, int]:
    """How many live images have no row of this model, by the model of their newest row."""
    _register(database, table, gone)
    query = f"""
        SELECT newest, count(*) FROM (
            SELECT image_uri, arg_max(model_id, scored_at) AS newest, arg_max(archive, scored_at) AS archive
            FROM scores GROUP BY image_uri HAVING NOT bool_or(model_id = $model_id)
        ) {_LIVE} GROUP BY newest ORDER BY newest
    """
    return dict(database.sql(query, params={"model_id": model_id}).fetchall())


def _latest_rows(
    database: duckdb.DuckDBPyConnection,
    table: DeltaTable,
    gone: Gone,
    model_id: str | None,
) -> pa.RecordBatchReader:
    _register(database, table, gone)
    query = f"SELECT * FROM ({_NEWEST}) {_LIVE} ORDER BY image_uri"
    return database.sql(query, params={"model_id": model_id}).to_arrow_reader(_ROWS_AT_ONCE)


def _register(database: duckdb.DuckDBPyConnection, table: DeltaTable, gone: Gone) -> None:
    """Register the table as `scores`, and what has gone and come back, for one query."""
    database.register("scores", scan(table))
    database.register("listed_as_gone", read_gone(list(gone.lists.values())))
    back = pa.schema([GONE_SCHEMA.field("image_uri")]).empty_table().to_reader()
    database.register("back", back if gone.listed_since is None else gone.listed_since())


def read_gone(lists: Sequence[Location]) -> pa.RecordBatchReader:
    """The rows of these gone.parquet files, to be read once in bounded memory."""

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
