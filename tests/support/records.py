"""Records of committed runs, written without the runs."""

import json
from dataclasses import replace
from typing import Any, Final

from pneumonia_core.runs.record import RunConfiguration, RunRecord
from pneumonia_core.runs.run import run_folder
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import Location

CONFIGURATION: Final = RunConfiguration(("file:///archive",), "model", "auto", "auto", None, False, None, 256)
_COMMITTED: Final = RunRecord(
    run_id="",
    run_date="2026-11-01",
    state="committed",
    created_at="2026-11-01T00:00:00+00:00",
    configuration=CONFIGURATION,
    model="/models/m",
    versions={},
    planned_version=0,
    listing_complete=True,
)


def write_committed(results: Location, number: int, **fields: Any) -> RunRecord:
    """Write the record of the committed run of this number, with these fields; the record."""
    record = replace(_COMMITTED, run_id=f"{number:06d}-run", planned_version=number, **fields)
    content = json.dumps(record.as_json()).encode()
    write_bytes(run_folder(results, record.run_id).child("run.json"), content)
    return record
