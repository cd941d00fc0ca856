"""Where processes import from: never the current folder of a user, which may be an archive."""

import sys
from pathlib import Path
from typing import Final

import pneumonia_core

# The folder with this project's packages: a checkout, or that of all installed packages.
CODE_FOLDER: Final = Path(pneumonia_core.__file__).resolve().parent.parent


def import_path() -> list[str]:
    """This process's import path for another one: absolute folders, without the current folder.

    `python -m` puts the current folder first, and a driver of Ray that of its own into its workers. It stays
    only where this project's code is there.
    """
    return [str(Path(folder).absolute()) for folder in sys.path if _may_be_imported_from(folder)]


def leave_out_current_folder() -> None:
    """Let this process import nothing from its current folder, unless this project's code is there."""
    sys.path[:] = [folder for folder in sys.path if _may_be_imported_from(folder)]


def _may_be_imported_from(folder: str) -> bool:
    resolved = Path(folder).resolve()
    return resolved == CODE_FOLDER or resolved != Path.cwd().resolve()
