"""The probabilities of a bundle's float32 Keras model for a folder of images. GPUs compute TF32: hide them.

usage: reference.py BUNDLE IMAGES OUT
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import open_bundle, read_keras_model
from pneumonia_core.bundles.parity import predict
from pneumonia_core.imaging.decode import decode
from pneumonia_core.networks.scoring_model import load_scoring_model


def write_reference(folder: Path, images: Path, out: Path) -> None:
    """Write what a peer writes, for images that are decoded as `pneumonia score` does: path, p0, p1, p2."""
    bundle = open_bundle(folder)
    paths = sorted(images.iterdir())
    with ThreadPoolExecutor() as pool:
        squares = np.stack(list(pool.map(lambda path: decode(path.read_bytes(), bundle.image_size), paths)))
    probabilities = predict(load_scoring_model(read_keras_model(bundle)), squares).probabilities
    out.mkdir()
    columns = {f"p{each}": probabilities[:, each] for each in range(3)}
    pq.write_table(pa.table({"path": [path.name for path in paths], **columns}), out / "scores.parquet")


if __name__ == "__main__":
    write_reference(*map(Path, sys.argv[1:]))
