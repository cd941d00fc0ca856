"""Scoring at work: images per second, and how busy the cores are between the first and the last part.

    python tests/bench/score_throughput.py ARCHIVE --model BUNDLE [--copies 4] [--shape cpu] [--engine auto]

The JPEGs under ARCHIVE are scored `--copies` times over, every copy different in bytes and pixels, so that
the run is long enough for a steady state. The share of busy core time is read from /proc/stat every half
second: run it on a machine that does nothing else. `compare.py` says how fast others are.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from comparison.archive import distinct_jpegs, write_archive
from comparison.machine import busy_seconds

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--shape", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--chunk-size", default="64")
    options = parser.parse_args()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles everything again. Unset it.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = len(distinct_jpegs(options.archive)) * options.copies
        archive = write_archive(options.archive, folder / "archive", images)
        command = [
            "score", str(archive), "--model", str(options.model.resolve()), "--results", str(folder / "r"),
            "--shape", options.shape, "--engine", options.engine, "--chunk-size", options.chunk_size,
        ]  # fmt: skip
        samples, result = run(command, folder / "r")
    report(samples, result, images)


def run(command: list[str], results: Path) -> tuple[list[tuple[float, int, float]], dict]:
    """Samples of (time, parts written, busy core seconds), and the command's result."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    samples = []
    while process.poll() is None:
        parts = sum(1 for _ in results.glob("runs/*/parts/*.parquet"))
        samples.append((time.perf_counter(), parts, busy_seconds()))
        time.sleep(0.5)
    output = process.communicate()[0]
    return samples, json.loads(output.strip().splitlines()[-1])


def report(samples: list[tuple[float, int, float]], result: dict, images: int) -> None:
    last = max(parts for _, parts, _ in samples)
    steady = [sample for sample in samples if 1 <= sample[1] < last]
    (start, first_parts, busy_first), (end, last_parts, busy_last) = steady[0], steady[-1]
    seconds = end - start
    per_chunk = images / last
    print(
        f"engine {result['engine']}, {result['scored']} scored, {result['rejected']} rejected, "
        f"{result['seconds']} s in all"
    )
    print(
        f"steady state      {seconds:.1f} s, {(last_parts - first_parts) * per_chunk / seconds:.1f} images/s"
    )
    print(f"cores busy        {(busy_last - busy_first) / seconds / (os.cpu_count() or 1):.1%}")


if __name__ == "__main__":
    main()
