"""Weak scaling of scoring over nodes on this machine, with an engine that sleeps some ms an image.

    python tests/bench/weak_scaling.py --model BUNDLE [--nodes 1,4,16] [--images 3328] [--sleep-ms 5]
        [--chunk-size 256] [--actors 1,16]

Each node has one CPU, one actor and `--images` images, a whole number of chunks. They are small pictures, and
the engine sleeps before each batch, so that many nodes fit on two cores. Printed for each number of nodes:

- the images per second from the first batch that is begun to the last part, which includes the nodes' start
  one after the other and the end, where some have no chunk left; efficiency is its share of what actors that
  only sleep would do, and of the first number of nodes;
- the rate while all nodes work and chunks wait, and how much of this time the actors do not sleep;
- when the last node began, after the first;
- CPU seconds by kind of process between the first image and the last part: where they come near to two
  cores, the machine is the limit;
- the driver's CPU time for an image, of the whole command; what starting costs is measured with one chunk and
  taken off.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from process_times import ProcessTimes

from pneumonia_core.bundles.engines import BATCH_SIZE

ROOT = Path(__file__).parents[2]


@dataclass
class Samples:
    """What the command's nodes did: at each time, how many bytes each node's log had, and how many parts
    there were. A log has a line for each batch that was begun: its images, each as many bytes.
    Chunks are whole batches."""

    times: list[float] = field(default_factory=list)
    logs: list[list[int]] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    cpu: ProcessTimes | None = None


@dataclass(frozen=True)
class Bench:
    model: Path
    sleep_s: float
    chunk: int
    images: int
    actors: str | None
    folder: Path

    def log(self, node: int) -> Path:
        return self.folder / f"{node}.log"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--nodes", default="1,4,16")
    parser.add_argument("--images", type=int, default=3328, help="images for each node")
    parser.add_argument("--sleep-ms", type=float, default=5.0)
    parser.add_argument("--chunk-size", type=int, default=256)
    parser.add_argument("--actors", help="as of `pneumonia score`")
    options = parser.parse_args()
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles everything again. Unset it.")
    first = None
    for nodes in map(int, options.nodes.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            sleep_s = options.sleep_ms / 1000
            bench = Bench(
                options.model.resolve(),
                sleep_s,
                options.chunk_size,
                options.images,
                options.actors,
                Path(temporary),
            )
            rate = measure(bench, nodes)
        first = first or rate
        print(f"    efficiency {rate * sleep_s:.3f}, against the first {rate / first:.3f}", flush=True)


def measure(bench: Bench, nodes: int) -> float:
    """Prints what one cluster does; images per second and node between the first image and the last part."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 200 * 2**20}
    )
    try:
        for node in range(nodes):
            rules = f"engine=log:{bench.log(node)};engine=sleep:{bench.sleep_s * BATCH_SIZE}"
            environment = {"PNEUMONIA_FAILPOINTS": rules}
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars=environment)
        small = archive(bench.folder / "small.zip", bench.chunk)
        _, start_cpu_s, _ = score(bench, small, cluster.address, nodes)
        for node in range(nodes):
            bench.log(node).unlink(missing_ok=True)
        total = nodes * bench.images
        everything = archive(bench.folder / "all.zip", total)
        samples, cpu_s, result = score(bench, everything, cluster.address, nodes)
    finally:
        cluster.shutdown()
    driver_us = (cpu_s - start_cpu_s) / (total - bench.chunk) * 1e6
    rate = report(bench, samples, nodes)
    print(
        f"    driver {driver_us:.0f} µs of CPU an image (start {start_cpu_s:.1f} s), "
        f"whole command {result['seconds']} s"
    )
    return rate


def report(bench: Bench, samples: Samples, nodes: int) -> float:
    total = nodes * bench.images
    begun = [time_of(samples, node, 1) for node in range(nodes)]
    begin, all_work = min(begun), max(begun)
    end = next(
        at for at, parts in zip(samples.times, samples.parts, strict=True) if parts == max(samples.parts)
    )
    rate = total / (end - begin) / nodes
    print(
        f"{nodes} nodes, {total:,} images of {bench.sleep_s * 1000:g} ms in chunks of {bench.chunk}: "
        f"{rate * nodes:.0f} images/s from the first image to the last part, {end - begin:.1f} s; "
        f"the last node began {all_work - begin:.1f} s after the first"
    )
    empty = queue_empty(bench, samples, nodes)
    done = sum(images_at(samples, node, empty) - images_at(samples, node, all_work) for node in range(nodes))
    steady = done / (empty - all_work)
    print(
        f"    {empty - all_work:.1f} s in which all nodes worked and chunks waited: {steady:.0f} images/s, "
        f"{1 - steady * bench.sleep_s / nodes:.1%} of an actor's time not asleep; the end took "
        f"{end - empty:.1f} s"
    )
    assert samples.cpu is not None
    times = samples.cpu.by_kind()
    cores = {kind: seconds / (end - begin) for kind, seconds in times.most_common() if seconds >= 0.1}
    print("    cores: " + ", ".join(f"{kind} {count:.2f}" for kind, count in cores.items()))
    return rate


def time_of(samples: Samples, node: int, line: int) -> float:
    """When this node had first begun so many images."""
    for at, logs in zip(samples.times, samples.logs, strict=True):
        if logs[node] >= line:
            return at
    raise ValueError(f"node {node} began fewer than {line} images")


def images_at(samples: Samples, node: int, time_s: float) -> int:
    return samples.logs[samples.times.index(time_s)][node]


def queue_empty(bench: Bench, samples: Samples, nodes: int) -> float:
    """When the first image of the last chunk was begun. A chunk is so many images in the archive's order."""
    begun: dict[int, float] = {}
    for node in range(nodes):
        images = bench.log(node).read_text().replace("\\n", "\n").splitlines()
        for number, image in enumerate(images, start=1):
            chunk = int(image[-11:-4]) // bench.chunk
            if chunk not in begun:
                begun[chunk] = time_of(samples, node, number)
    return max(begun.values())


def archive(path: Path, images: int) -> Path:
    picture = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(picture, "PNG")
    with zipfile.ZipFile(path, "w") as file:
        for number in range(images):
            file.writestr(f"{number:07d}.png", picture.getvalue())
    return path


def score(bench: Bench, source: Path, address: str, nodes: int) -> tuple[Samples, float, dict]:
    """What the nodes did, the command's CPU seconds, and its result."""
    results = bench.folder / f"{source.stem}-results"
    command = ["score", str(source), "--model", str(bench.model), "--results", str(results)]
    settings = ["--address", address, "--engine", "openvino", "--chunk-size", str(bench.chunk)]
    if bench.actors:
        settings += ["--actors", bench.actors]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command, *settings],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    samples = follow(bench, process, results, nodes)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    output = process.stdout.read()
    assert process.returncode in (0, 3), output
    return samples, cpu_s, json.loads(output.strip().splitlines()[-1])


def follow(bench: Bench, process: subprocess.Popen[str], results: Path, nodes: int) -> Samples:
    """Samples until the command ends. CPU times count from the first image on, to the last part."""
    samples = Samples()
    # file://…!/0000000.png and two characters between one and the next.
    length = 0
    looked_at = most = 0.0
    while process.poll() is None:
        sizes = [log.stat().st_size if log.exists() else 0 for log in map(bench.log, range(nodes))]
        if any(sizes):
            length = length or len(first_image(bench, nodes))
            samples.times.append(time.monotonic())
            samples.logs.append([size // (length * BATCH_SIZE - 1) * BATCH_SIZE for size in sizes])
            samples.parts.append(len(list(results.glob("runs/*/parts/*.parquet"))))
            if samples.cpu is None:
                samples.cpu = ProcessTimes()
            elif samples.parts[-1] > most and time.monotonic() - looked_at > 1:
                samples.cpu.look()
                looked_at, most = time.monotonic(), samples.parts[-1]
        time.sleep(0.05)
    return samples


def first_image(bench: Bench, nodes: int) -> bytes:
    logs = [log for log in map(bench.log, range(nodes)) if log.exists()]
    return next(log.read_bytes().split(b"\\n")[0] + b"\\n" for log in logs if log.stat().st_size)


if __name__ == "__main__":
    main()
