"""Copies the code that a job needs on the cluster: the project's own packages and nothing else."""

import os
import shutil
from pathlib import Path
from typing import Final

PACKAGES: Final = ("pneumonia_core", "jobs", "cluster")
SUFFIXES: Final = frozenset({".py", ".html", ".css", ".md"})


def copy_code(target: Path) -> None:
    """Copy the source of the three packages, and pyproject.toml, into the folder `target`.

    Packages and suffixes come from an allow-list, and links are left out, so that no data, environment,
    history or secret is sent by accident. Works from a checkout and from an installed wheel.
    """
    root = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        for folder, _, names in os.walk(root / package):
            for name in names:
                source = Path(folder) / name
                if source.suffix in SUFFIXES and not source.is_symlink():
                    _copy(source, target / source.relative_to(root))
    if (root / "pyproject.toml").is_file():
        _copy(root / "pyproject.toml", target / "pyproject.toml")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
