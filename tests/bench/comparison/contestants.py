"""What is compared: `pneumonia score`, and what a user would write instead with the bundle's model.keras."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from .process import Ended, run_command

ROOT: Final = Path(__file__).parents[3]
PEERS: Final = {"keras": "keras_script.py", "daft": "daft_script.py", "ray_data": "ray_data_docs.py"}
Probabilities = dict[str, np.ndarray]  # float32 [3] of each file name


@dataclass(frozen=True)
class Contestant:
    """`command(images, out)` scores a folder of images into the folder `out`, `read(out)` reads that.

    `is_ours` says that the last line of its output is the JSON result of `pneumonia score`.
    """

    name: str
    command: Callable[[Path, Path], list[str]]
    read: Callable[[Path], Probabilities]
    environment: dict[str, str] = field(default_factory=dict)
    is_ours: bool = False

    def score(self, images: Path, out: Path) -> Ended:
        """Raises CommandFailed."""
        return run_command(self.command(images, out), out.parent, **self.environment)


def ours(bundle: Path, *options: str) -> Contestant:
    """`pneumonia score` with its defaults and these options."""

    def command(images: Path, out: Path) -> list[str]:
        arguments = ["score", str(images), "--model", str(bundle), "--results", str(out), *options]
        return [sys.executable, "-m", "jobs.cli", *arguments]

    name = " ".join(["pneumonia score", *options])
    return Contestant(name, command, _read_table, {"PYTHONPATH": str(ROOT)}, is_ours=True)


def peer(name: str, bundle: Path, packages: Path | None) -> Contestant:
    """One of PEERS. `packages` is a folder with packages that only peers import."""
    script = ROOT / "tests" / "bench" / "peers" / PEERS[name]
    size = str(json.loads((bundle / "bundle.json").read_text())["image"]["size"])

    def command(images: Path, out: Path) -> list[str]:
        return [sys.executable, str(script), str(bundle / "model.keras"), size, str(images), str(out)]

    return Contestant(name, command, read_files, {"PYTHONPATH": str(packages)} if packages else {})


def has_daft(packages: Path | None) -> bool:
    found = importlib.util.find_spec("daft") is not None
    return found or (packages is not None and (packages / "daft").is_dir())


def _read_table(results: Path) -> Probabilities:
    columns = ["image_uri", "p_normal", "p_bacterial", "p_viral"]
    table = DeltaTable(str(results / "scores")).to_pyarrow_table(columns=[*columns, "status"])
    rows = table.filter(pc.equal(table["status"], "scored")).select(columns)
    return _by_name(*(rows[name].to_numpy() for name in columns))


def read_files(folder: Path) -> Probabilities:
    table = pq.read_table(folder)
    return _by_name(*(table[name].to_numpy() for name in ("path", "p0", "p1", "p2")))


def _by_name(paths: np.ndarray, *probabilities: np.ndarray) -> Probabilities:
    found = {
        str(path).rpartition("/")[2]: row
        for path, row in zip(paths, np.stack(probabilities, axis=1), strict=True)
    }
    if len(found) != len(paths):
        raise ValueError(f"{len(paths)} rows of {len(found)} images")
    return found
