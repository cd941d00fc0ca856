"""One row for each image that is still in its archive: the newest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import DeltaTable

from pneumonia_core.results.table import scan
from pneumonia_core.storage.location import Location
from pneumonia_core.system.scratch import open_database

_NEWEST: Final = """
    SELECT * EXCLUDE (nth) FROM (
        SELECT *, row_number() OVER (PARTITION BY image_uri ORDER BY scored_at DESC, attempt DESC) AS nth FROM scores
    ) WHERE nth = 1
"""


def latest_rows(
    table: DeltaTable, gone: Mapping[str, Location], spill_folder: Path, memory_mb: int = 1000
) -> tuple[duckdb.DuckDBPyConnection, pa.RecordBatchReader]:
    """The newest row of each live image, sorted by URI, as a stream; the connection must stay open for it.

    `gone` names, for each archive, the gone.parquet of its newest complete run.
    """
    database = open_database(spill_folder, memory_mb)
    database.register("scores", scan(table))
    query = _NEWEST
    if gone:
        database.register("gone", _gone_dataset(list(gone.values())))
        # An archive's list counts for that archive alone: an image may have moved to another.
        query = f"SELECT * FROM ({_NEWEST}) ANTI JOIN gone USING (image_uri, archive)"
    return database, database.sql(f"SELECT * FROM ({query}) ORDER BY image_uri").to_arrow_reader(65_536)


def _gone_dataset(places: Sequence[Location]) -> pads.Dataset:
    schema = pa.schema([("image_uri", pa.string()), ("archive", pa.string())])
    return pads.dataset(
        [place.path for place in places], schema=schema, filesystem=places[0].fs, format="parquet"
    )
