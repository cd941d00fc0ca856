"""Scoring runs that are killed: the command, its processes, and the comparison with an undisturbed run."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from support.scoring import REPOSITORY, last_json, pneumonia_here, rows

IMAGES = 96
CHUNK = 8
# What one death can cost: an actor has two chunks in work.
IN_FLIGHT = 2 * CHUNK
# A Ray of the command's own, which dies with it.
OWN_RAY = ("--num-cpus", 2)
COLUMNS = [
    "image_uri",
    "image_sha256",
    "status",
    "reject_reason",
    "p_normal",
    "p_bacterial",
    "p_viral",
    "finding",
    "attempt",
]


@dataclass
class SoakReport:
    """Kills of each kind, the rows of the tables that were compared, and the images that were read again."""

    kills: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    rereads: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, rereads: int) -> None:
        self.kills[kind] += 1
        self.rows[kind] += IMAGES
        self.rereads[kind] += rereads

    def note(self, text: str) -> None:
        self.notes.append(f"soak: {text}")

    def lines(self) -> list[str]:
        return self.notes + [
            f"soak: {kind}: {count} times, {self.rows[kind]:,} rows right, "
            f"{self.rereads[kind]:,} images read again"
            for kind, count in self.kills.items()
        ]


def command(archive: Path, bundle, results: Path, *more: object) -> list[object]:
    # In shape gpu the engine computes on CPUs too: the GPUs of the clusters are only declared.
    options = ["--model", bundle.path, "--results", results, "--chunk-size", CHUNK, "--engine", "openvino"]
    return ["score", archive, *options, *more]


def start(arguments: list[object], **environment: str) -> subprocess.Popen[str]:
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS")}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**settings, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(arguments: list[object]) -> dict:
    """Run the command again over the session's Ray until it ends well, at most three times."""
    for _ in range(3):
        done = pneumonia_here(*arguments)
        if done.returncode == 0:
            return last_json(done)
    raise AssertionError(done.stderr)


def reads(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def check_equal(results: Path, undisturbed: pa.Table) -> None:
    """The same rows, none repeated, the same probabilities; and no run is left unfinished."""
    assert rows(results).select(COLUMNS).sort_by("image_uri").equals(undisturbed)
    assert not list((results / "runs" / ".unfinished").iterdir())


def wait_until(
    condition: Callable[[], object], process: subprocess.Popen[str], timeout_s: float = 90
) -> None:
    """Wait for a condition that holds while the command still runs."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> str:
    """What a run that ends well has printed for a person."""
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return errors
