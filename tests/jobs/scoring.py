"""How the tests score: in this process over the session's Ray, or as a user in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from jobs.run import Order
from jobs.score import score_archives
from jobs.work import Settings
from pneumonia_core.archives import open_archive
from pneumonia_core.places import make_folder, open_place

REPOSITORY = Path(__file__).parents[2]


def order(bundle, *archives, **changes) -> Order:
    base = Order(
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


def score(results: Path, work: Order, **settings) -> dict:
    place = open_place(str(results))
    make_folder(place)
    return score_archives(place, work, Settings(**settings))


def rows(results: Path) -> pa.Table:
    return DeltaTable(str(results / "scores")).to_pyarrow_table()


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


def last_json(done: subprocess.CompletedProcess[str]) -> dict:
    return json.loads(done.stdout.strip().splitlines()[-1])
