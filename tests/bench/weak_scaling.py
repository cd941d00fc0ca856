"""Weak scaling of scoring over nodes on this machine, with workers that sleep 5 ms an image.

    python tests/bench/weak_scaling.py --model BUNDLE [--nodes 1,4,16] [--images 3125]

Each node has one CPU, one actor and `--images` images. A worker sleeps and rejects the image instead of
reading it, so that 16 nodes fit on two cores. Efficiency is the images per second and node between the
first and the last part, against those of the first number of nodes. An actor is idle for the time in which
it does not sleep. The driver's CPU time is that of the whole command; what starting costs is measured with
one chunk and taken off.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLEEP_S = 0.005
RULES = f"decode=sleep:{SLEEP_S};decode=reject:blank"
CHUNK = 256


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--nodes", default="1,4,16")
    parser.add_argument("--images", type=int, default=3125, help="images for each node")
    options = parser.parse_args()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles everything again. Unset it.")
    first = None
    for nodes in map(int, options.nodes.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            rate = measure(nodes, options.images, options.model.resolve(), Path(temporary))
        first = first or rate
        print(f"    efficiency {rate / first:.3f}")


def measure(nodes: int, images: int, model: Path, folder: Path) -> float:
    """Prints what one cluster does; images per second and node between the first and the last part."""
    from ray.cluster_utils import Cluster

    os.environ["PNEUMONIA_FAILPOINTS"] = RULES
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20}
    )
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        os.environ.pop("PNEUMONIA_FAILPOINTS")
        _, start_cpu_s, _ = score(
            archive(folder / "small.zip", CHUNK), model, folder / "small", cluster.address
        )
        total = nodes * images
        everything = archive(folder / "all.zip", total)
        parts, cpu_s, result = score(everything, model, folder / "r", cluster.address)
    finally:
        cluster.shutdown()
    (begin, done_before), (end, _) = parts[0], parts[-1]
    scored = total - done_before * CHUNK
    rate = scored / (end - begin) / nodes
    print(
        f"{nodes} nodes, {total:,} images: {rate * nodes:.0f} images/s, "
        f"{1 - rate * SLEEP_S:.1%} of an actor's time not asleep, driver "
        f"{(cpu_s - start_cpu_s) / (total - CHUNK) * 1e6:.0f} µs of CPU an image "
        f"(start {start_cpu_s:.1f} s), "
        f"whole command {result['seconds']} s"
    )
    return rate


def archive(path: Path, images: int) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for number in range(images):
            file.writestr(f"{number:07d}.png", b"\x89PNG\r\n\x1a\n")
    return path


def score(
    source: Path, model: Path, results: Path, address: str
) -> tuple[list[tuple[float, int]], float, dict]:
    """Times and numbers of parts as they appeared, the command's CPU seconds, and its result."""
    command = ["score", str(source), "--model", str(model), "--results", str(results), "--address", address]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command, "--engine", "openvino", "--chunk-size", str(CHUNK)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    parts: list[tuple[float, int]] = []
    while process.poll() is None:
        found = len(list(results.glob("runs/*/parts/*.parquet")))
        if found and (not parts or found > parts[-1][1]):
            parts.append((time.monotonic(), found))
        time.sleep(0.05)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    output = process.stdout.read()
    assert process.returncode in (0, 3), output
    return parts, cpu_s, json.loads(output.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
