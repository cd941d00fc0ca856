"""Where processes import from: never the current folder of a user, which may be an archive."""

import sys
from pathlib import Path
from typing import Final

import pneumonia_core

# The folder with this project's packages: a checkout, or that of all installed packages.
CODE_FOLDER: Final = Path(pneumonia_core.__file__).resolve().parent.parent


def import_path() -> list[str]:
    """Python's import path as absolute folders, without the working folder unless this project is in it.

    `python -m` puts the working folder first, and a Ray driver that of its own workers.
    """
    folders = [Path(folder).absolute() for folder in sys.path if folder]
    here = Path.cwd().resolve()
    return [str(folder) for folder in folders if folder.resolve() != here or here == CODE_FOLDER]
