"""How the tests score: in this process over the session's Ray, or as a user in a process of its own."""

import dataclasses
import datetime
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner
from deltalake import DeltaTable

from jobs.cli import main
from jobs.scoring.context import ExecutionOptions
from jobs.scoring.run import score_archives
from pneumonia_core.archives.archive import list_archive, open_archive
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.results.commit import DataFile, commit
from pneumonia_core.results.schema import FILE_SCHEMA
from pneumonia_core.results.table import open_table
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.storage.files import make_folder
from pneumonia_core.storage.location import open_location
from support.paths import REPOSITORY


def scoring_request(bundle, *archives, **changes) -> RunRequest:
    base = RunRequest(
        archives=tuple(open_archive(str(archive)) for archive in archives),
        model=str(bundle.path),
        model_id=bundle.model_id,
        engine="openvino",
        precision="float32",
        rescore=None,
        retry_rejected=False,
        limit=None,
        chunk_size=16,
        run_date="2026-01-31",
        date_is_given=False,
    )
    return dataclasses.replace(base, **changes)


def score(results: Path, request: RunRequest, **options) -> dict:
    location = open_location(str(results))
    make_folder(location)
    return score_archives(
        location, request, open_bundle(request.model), ExecutionOptions(**options)
    ).as_json()


def rows(results: Path) -> pa.Table:
    return DeltaTable(str(results / "scores")).to_pyarrow_table()


def commit_as_scored(results: Path, archive: Path, model_id: str, run_date: str = "2026-01-30") -> None:
    """The table after a night that scored all of an archive, without a cluster."""
    location = open_location(str(results))
    version = open_table(location).version()
    file = write_as_scored(results, archive, model_id, "earlier", run_date)
    commit(location, version, f"{archive.name} earlier", run_date, [file])


def write_as_scored(
    results: Path, archive: Path, model_id: str, run_id: str, run_date: str = "2026-01-30"
) -> DataFile:
    """A data file with a row for each image of an archive, not committed yet."""
    uri = open_archive(str(archive))
    facts = {"status": "scored", "attempt": 1, "engine": "e", "model_id": model_id, "run_id": run_id}
    found = [
        {"image_uri": image.uri, "image_version": image.version, "archive": uri, **facts}
        for image in list_archive(uri, Counter())
    ]
    now = datetime.datetime.now(datetime.UTC)
    every = [{**dict.fromkeys(FILE_SCHEMA.names), "scored_at": now, **row} for row in found]
    name = f"run_date={run_date}/{archive.name}-{run_id}.parquet"
    file = results / "scores" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(every, schema=FILE_SCHEMA), file)
    return DataFile(name, file.stat().st_size, len(every), {}, 0)


def pneumonia(
    *arguments: object, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS")}
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**settings, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def pneumonia_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in this process, over the Ray that it is connected to: a process of its own takes seconds
    longer."""
    done = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def last_json(done: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(done.stdout.strip().splitlines()[-1])
