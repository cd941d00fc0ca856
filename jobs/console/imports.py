"""Imports of the many modules of a library."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Python looks for no garbage in the block: imports leave none, and it takes an eighth of their time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # What was imported stays, so that later looks leave it out.
        gc.freeze()
        if enabled:
            gc.enable()
