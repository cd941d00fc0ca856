"""Nights of very many rows: the whole command over a manifest of images so small that accounting is the work.

    python tests/bench/million.py [--rows 1000000] [--keep FOLDER]

The manifest names every one of 1,000 real PNG files of 32 px through so many links that the URIs are
distinct; the engine is a network of a few hundred weights. Prints the seconds and the driver's peak memory of
the first night, of a second night with 1 % changed, and of a resume after a kill at half the chunks.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).parents[2]
FILES = 1000
CHUNK_SIZE = 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="Folder for all files; kept.")
    options = parser.parse_args()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles everything again. Unset it.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        manifest = make_archive(folder, options.rows)
        bundle = make_bundle(folder)
        run(folder, options.rows, manifest, bundle)


def run(folder: Path, rows: int, manifest: Path, bundle: Path) -> None:
    # Between images so small is the interpreter: a process for each core, not a thread, and more of them in a
    # chunk.
    small = ["--actors", str(os.cpu_count()), "--actor-cpus", "1", "--chunk-size", str(CHUNK_SIZE)]
    command = ["score", str(manifest), "--model", str(bundle), "--engine", "openvino", *small, "--results"]
    report("first night", *measure([*command, str(folder / "r")]))
    files = len([path for path in (folder / "r").rglob("*.parquet")])
    print(f"{'':24}{files} Parquet files under the results")
    now = time.time_ns()
    for number in range(FILES // 100):
        os.utime(folder / "files" / f"{number:04d}.png", ns=(now, now))
    report("second night, planning", *measure([*command, str(folder / "r"), "--dry-run"]))
    report("second night, 1 % new", *measure([*command, str(folder / "r")]))
    parts = folder / "half" / "runs"
    half = rows // CHUNK_SIZE // 2
    measure([*command, str(folder / "half")], kill_when=lambda: count_parts(parts) >= half)
    done = settled(parts)
    first: list[float] = []
    started = time.perf_counter()

    def note() -> bool:
        if not first and count_parts(parts) > done:
            first.append(time.perf_counter() - started)
        return False

    report("resume at half", *measure([*command, str(folder / "half")], kill_when=note))
    print(f"{'':24}first new part after {first[0] if first else float('nan'):.1f} s")


def make_archive(folder: Path, rows: int) -> Path:
    files = folder / "files"
    files.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(FILES):
        Image.fromarray(generator.integers(0, 255, (32, 32)).astype(np.uint8)).save(
            files / f"{number:04d}.png"
        )
    links = -(-rows // FILES)
    for number in range(links):
        (folder / f"d{number:05d}").symlink_to("files")
    uris = [f"{folder}/d{row // FILES:05d}/{row % FILES:04d}.png" for row in range(rows)]
    pq.write_table(pa.table({"uri": uris}), folder / "images.parquet")
    return folder / "images.parquet"


def make_bundle(folder: Path) -> Path:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import keras, numpy as np
from keras import ops
from pathlib import Path
from pneumonia_core.bundles.bundle import ModelSpec
from pneumonia_core.bundles.parity import ParityImages
from pneumonia_core.bundles.writer import write_bundle
from pneumonia_core.findings import Thresholds
image = keras.Input((32, 32), dtype="uint8", name="image")
x = ops.expand_dims(ops.cast(image, "float32") / 255, -1)
x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 8, strides=8)(x))
model = keras.Model(image, {{"probabilities": keras.layers.Softmax()(keras.layers.Dense(3)(x))}})
images = np.random.default_rng(0).integers(0, 255, (64, 32, 32)).astype(np.uint8)
parity = ParityImages(images, np.arange(64) % 3)
spec = ModelSpec("tiny", 32, Thresholds(0.5, 0.5), "none", {{}})
models, baseline = Path({str(folder / "models")!r}), np.full((9, 3), 1 / 3, np.float32)
print(write_bundle(models, model, spec, parity, baseline, {{}}).path)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip().splitlines()[-1])


def measure(arguments: list[str], kill_when=None) -> tuple[float, float, dict]:
    """Seconds, peak memory of the driver in MiB, and the result of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    peak = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                peak[0] = int(found[1]) / 1024
            if kill_when is not None and kill_when():
                os.kill(process.pid, signal.SIGKILL)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    lines = output.strip().splitlines()
    return time.perf_counter() - started, peak[0], json.loads(lines[-1]) if lines else {}


def count_parts(runs: Path) -> int:
    return sum(1 for _ in runs.glob("*/parts/*.parquet"))


def settled(runs: Path) -> int:
    """The parts that are there once the killed driver's workers have ended too."""
    before = -1
    while before != (before := count_parts(runs)):
        time.sleep(5)
    return before


def report(name: str, seconds: float, peak_mb: float, result: dict) -> None:
    counts = {
        key: result.get(key)
        for key in ("listed", "to_score", "scored", "rejected", "unchanged")
        if key in result
    }
    print(f"{name:24}{seconds:7.1f} s   driver peak {peak_mb:6.0f} MiB   {counts}", flush=True)


if __name__ == "__main__":
    main()
