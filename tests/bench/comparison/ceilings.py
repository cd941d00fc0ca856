"""What this machine decodes alone, and what it computes alone, on all cores.

usage: ceilings.py BUNDLE IMAGES ENGINE PRECISION    prints JSON: decode_images_per_s, engine_images_per_s
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.imaging.decode import decode

MEASURE_S: Final = 5.0
ROUND: Final = 128  # images; whole batches


def ceilings(
    folder: Path, images: Path, engine: str, precision: str, measure_s: float = MEASURE_S
) -> dict[str, float]:
    """Images per second that are read and decoded, and that the engine computes; each for `measure_s`."""
    bundle = open_bundle(folder)
    cores = len(os.sched_getaffinity(0))
    endless = itertools.cycle(sorted(images.iterdir()))
    read = partial(read_square, bundle.image_size)
    # Processes: threads would share Python's lock.
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:

        def squares() -> list[np.ndarray]:
            return list(pool.map(read, itertools.islice(endless, ROUND), chunksize=8))

        decoded = images_per_s(squares, measure_s)
        batch = np.stack(squares())
    score = load_engine(bundle, engine, precision, threads=cores)
    computed = images_per_s(lambda: score(batch), measure_s)
    return {"decode_images_per_s": decoded, "engine_images_per_s": computed}


def read_square(size: int, path: Path) -> np.ndarray:
    return decode(path.read_bytes(), size)


def images_per_s(round_of_images: Callable[[], object], measure_s: float) -> float:
    """The rate over `measure_s`, after one round that counts for nothing."""
    round_of_images()
    started, rounds, seconds = time.perf_counter(), 0, 0.0
    while seconds < measure_s:
        round_of_images()
        rounds, seconds = rounds + 1, time.perf_counter() - started
    return rounds * ROUND / seconds


if __name__ == "__main__":
    print(json.dumps(ceilings(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])))
