"""The cache of decoded squares of a run: whether it can be used, and its index when the run has ended."""

from jobs.console.output import printable, say
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import make_folder, write_bytes
from pneumonia_core.storage.location import Location

_ABOUT = b"Decoded images of `pneumonia score --cache`. They may be deleted at any time.\n"


def usable_squares(folder: Location | None) -> Location | None:
    """The folder of a run's squares; None without one, and, with a warning, where it cannot be written."""
    if folder is None:
        return None
    try:
        make_folder(folder)
        write_bytes(folder.child("ABOUT.txt"), _ABOUT, durable=False)
    except (OSError, PneumoniaError) as error:
        _warn(folder, error, "The run goes on without it.")
        return None
    return folder


def index_squares(folder: Location | None, run_id: str) -> None:
    """Let later runs find the squares of this one. A cache that fails changes nothing else."""
    if folder is None:
        return
    # Imports decoders, which the driver of a run without a cache does not need.
    from pneumonia_core.scoring.square_cache import index_run

    try:
        index_run(folder, run_id)
    except (OSError, PneumoniaError) as error:
        _warn(folder, error, "Later runs may not find the squares of this one.")


def _warn(folder: Location, error: OSError | PneumoniaError, consequence: str) -> None:
    say(f"warning: the cache {printable(folder.uri)} fails ({error_text(error)}). {consequence}")
