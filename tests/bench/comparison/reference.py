"""The probabilities of a bundle's float32 Keras model, on the CPU, for a folder of images.

usage: reference.py BUNDLE IMAGES OUT    as a peer writes them: columns path, p0, p1 and p2
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU would compute in TF32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import open_bundle, read_keras_model
from pneumonia_core.bundles.parity import predict
from pneumonia_core.imaging.decode import decode
from pneumonia_core.networks.scoring_model import load_scoring_model

bundle, images, out = open_bundle(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
paths = sorted(images.iterdir())
with ThreadPoolExecutor() as pool:
    squares = np.stack(list(pool.map(lambda path: decode(path.read_bytes(), bundle.image_size), paths)))
probabilities = predict(load_scoring_model(read_keras_model(bundle)), squares).probabilities
out.mkdir()
names = pa.array([path.name for path in paths])
columns = {f"p{each}": probabilities[:, each] for each in range(3)}
pq.write_table(pa.table({"path": names, **columns}), out / "scores.parquet")
