"""Imports of the many modules of a library."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Python looks for no garbage in the block: imports leave none, and it takes an eighth of their time."""
    enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            # What was imported stays, so that later looks leave it out.
            gc.freeze()
        if enabled:
            gc.enable()
