"""The baseline of a bundle: how the scores of its validation images are distributed."""

import hashlib
import logging
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import Bundle
from pneumonia_core.drift import BINS
from pneumonia_core.findings import CLASSES

_log = logging.getLogger(__name__)
BASELINE: Final = "baseline.parquet"
_BINS: Final = 50
_P_PNEUMONIA: Final = "p_pneumonia"


def write_baseline(path: Path, probabilities: np.ndarray) -> None:
    """Write histograms of the scores of validation images, 50 equal bins from 0 to 1.

    `probabilities` are float32 [N, 3] in the order of CLASSES.
    """
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    columns = dict(zip([f"p_{name}" for name in CLASSES], probabilities.T, strict=True))
    columns[_P_PNEUMONIA] = 1.0 - columns["p_normal"]
    tables = [
        pa.table(
            {
                "score": [name] * _BINS,
                "bin_left": edges[:-1],
                "bin_right": edges[1:],
                "images": np.histogram(np.clip(values, 0, 1), edges)[0],
            }
        )
        for name, values in columns.items()
    ]
    pq.write_table(pa.concat_tables(tables), path)


def read_baseline(bundle: Bundle) -> tuple[int, ...]:
    """The number of validation images in each of drift.BINS equal bins of p_pneumonia.

    Empty without a baseline, and where its file has gone or changed since the bundle was opened: a person
    reads it, and no score needs it.
    """
    expected = bundle.document["files"].get(BASELINE)
    if expected is None:
        return ()
    try:
        content = (bundle.path / BASELINE).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected:
            raise ValueError("another file")
        table = pq.read_table(pa.BufferReader(content))
        images = table.filter(pc.equal(table["score"], _P_PNEUMONIA))["images"].to_numpy()
        return tuple(int(number) for number in images.reshape(BINS, -1).sum(1))
    except (OSError, ValueError, KeyError, pa.ArrowException):
        _log.warning(f"{bundle.path / BASELINE} cannot be read any more: the run's page will lack its column")
        return ()
