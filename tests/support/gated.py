"""A run up to its commit without a cluster: its images are listed and planned, its parts written by hand."""

import contextlib
import datetime
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from jobs.scoring.context import ExecutionOptions, ScoringContext
from jobs.scoring.ending.commit import commit_run
from pneumonia_core.archives.lister import Lister
from pneumonia_core.errors import REJECT_REASONS
from pneumonia_core.gates import parse_gates
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import Inventory, read_chunk
from pneumonia_core.runs.parts import PART_SCHEMA, write_part
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.registry import new_run
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.files import make_folder
from pneumonia_core.storage.location import open_location


def night(results: Path, request: RunRequest, bundle, gates: Sequence[str] = (), value: float = 0.5) -> dict:
    """A run to its commit or to the gate that holds it; the command's result.

    An image whose name begins with a reject reason is rejected for it. `value` is p_normal of all others.
    """
    location = open_location(str(results))
    make_folder(location)
    table = open_table(location)
    options = ExecutionOptions(gates=parse_gates(gates))
    with new_run(location, request, table.version()) as run, contextlib.ExitStack() as session:
        with Planner(run.folder, TableView(table), PlanningRules(request.model_id)) as planner:
            with Lister(request.archives, request.rules) as lister:
                assert lister.wait(60)
                shards = planner.plan(lister.take(), [], request.chunk_size, relisted=False)
            run.advance("scoring", shards=tuple(shards), listing_complete=True, any_model=False)
            gone = planner.write_gone(request.archives, [Inventory(run.folder, shards)])
        _write_parts(run, value)
        context = ScoringContext(location, request, options, bundle, session)
        return commit_run(context, run, gone).as_json()


def _write_parts(run: Run, value: float) -> None:
    for shard in run.record.shards:
        for ref in shard.chunk_refs():
            rows = [_row(row, run, value) for row in read_chunk(run.folder, ref).to_pylist()]
            write_part(run.folder, ref.chunk, pa.Table.from_pylist(rows, schema=PART_SCHEMA))


def _row(listed: dict, run: Run, value: float) -> dict:
    reason = Path(listed["image_uri"]).name.split("-")[0]
    rejected = {"status": "rejected", "reject_reason": reason, "reject_detail": "planted by a test"}
    scored = {"status": "scored", "p_normal": value, "p_pneumonia": 1 - value, "finding": "normal"}
    return {
        **dict.fromkeys(PART_SCHEMA.names),
        **{name: listed[name] for name in PART_SCHEMA.names if name in listed},
        **(rejected if reason in REJECT_REASONS else scored),
        "engine": "openvino",
        "model_id": run.record.configuration.model_id,
        "run_id": run.run_id,
        "scored_at": datetime.datetime.now(datetime.UTC),
    }
