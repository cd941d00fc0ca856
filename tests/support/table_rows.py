"""Rows of the results table, written without a run."""

import datetime

import pyarrow as pa
from deltalake import write_deltalake

from pneumonia_core.results.schema import FILE_SCHEMA
from pneumonia_core.results.table import open_table
from pneumonia_core.storage.location import Location


def night(results: Location, hour: int, *images: tuple[str, str], model: str = "m", **values: object) -> None:
    """Append a row for each (archive, name), scored at this hour; `values` of other columns."""
    rows = [
        {
            **dict.fromkeys(FILE_SCHEMA.names),
            "image_uri": f"file:///{archive}/{name}",
            "image_version": "1-1",
            "archive": f"file:///{archive}",
            "status": "scored",
            "attempt": 1,
            "engine": "openvino",
            "model_id": model,
            "run_id": "r",
            "scored_at": datetime.datetime(2026, 11, 1, hour, tzinfo=datetime.UTC),
            **values,
        }
        for archive, name in images
    ]
    table = pa.Table.from_pylist(rows, FILE_SCHEMA)
    dates = pa.array([datetime.date(2026, 11, 1)] * len(rows))
    write_deltalake(open_table(results), table.append_column("run_date", dates), mode="append")
