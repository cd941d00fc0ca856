"""20 images from command to committed rows, with a Ray of its own and on a running cluster of this machine.

Beside them, what a process takes that does nothing but start Ray: on another machine compare the ratios.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from comparison.archive import write_archive
from comparison.contestants import ours
from comparison.process import run_command

PORT: Final = 6399
_START_RAY: Final = """
import time
started = time.perf_counter()
import ray
ray.init(address="local", log_to_driver=False, logging_level="ERROR")
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="a folder of original-size JPEGs")
    parser.add_argument("--model", type=Path, required=True, help="a bundle")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = write_archive(options.source, folder / "images", options.images)
        inits = [_ray_init(folder) for _ in range(options.rounds)]
        fresh = [_score(options.model, images, folder / f"fresh{n}") for n in range(options.rounds)]
        _report("a Ray of its own", fresh, median(inits))
        with _cluster() as address:
            joined = [
                _score(options.model, images, folder / f"joined{n}", f"--address={address}")
                for n in range(options.rounds)
            ]
        _report("a running cluster", joined, median(inits))


def _ray_init(folder: Path) -> float:
    seconds = float(run_command([sys.executable, "-c", _START_RAY], folder).output.split()[-1])
    print(f"import ray; ray.init(): {seconds:.2f} s", flush=True)
    return seconds


def _score(bundle: Path, images: Path, results: Path, *options: str) -> float:
    """The seconds from the command to the commit of its rows."""
    started = time.time()
    ended = ours(bundle, *options).score(images, results)
    # The table begins with version 0, which has no rows.
    committed = (results / "scores" / "_delta_log" / f"{1:020d}.json").stat().st_mtime - started
    steps = json.loads(ended.output.splitlines()[-1])["timings"]["steps"]
    print(f"committed after {committed:.2f} s, ended after {ended.seconds:.2f} s; {steps}", flush=True)
    return committed


def _report(what: str, seconds: list[float], ray_init: float) -> None:
    print(f"{what}: {median(seconds):.2f} s, {median(seconds) / ray_init:.2f} of import ray; ray.init()")


@contextlib.contextmanager
def _cluster() -> Iterator[str]:
    """A cluster of one node, by its address."""
    os.environ["RAY_AUTH_MODE"] = "token"
    ray, address = Path(sys.executable).with_name("ray"), f"127.0.0.1:{PORT}"
    command = [
        ray,
        "start",
        "--head",
        "--block",
        f"--port={PORT}",
        "--num-cpus=2",
        "--include-dashboard=false",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        try:
            while subprocess.run(
                [ray, "health-check", f"--address={address}"], capture_output=True
            ).returncode:
                if head.poll() is not None:
                    sys.exit(f"ray start ended with exit code {head.returncode}")
            yield address
        finally:
            head.terminate()


if __name__ == "__main__":
    main()
