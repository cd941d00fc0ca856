"""Settings of Ray Data for one data set, and its warnings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ray.data import DataContext

from jobs.console.output import say

# Parts of the warnings that a user can do something about: of a pool that cannot grow, of too few resources,
# of a full object store, of actors that do not start.
_TOLD: Final = (
    "will not allow it to scale up",
    "resources are not enough",
    "memory pressure",
    "spill",
    "died during initialization",
)
_LONGEST: Final = 300


@contextmanager
def data_context() -> Iterator[DataContext]:
    """A copy of the settings of Ray Data, without its output, current while the block runs.

    A data set keeps the settings under which it was made. Data sets made after the block have the previous
    settings.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        yield context


def quiet_ray_data() -> None:
    """Ray Data prints nothing but the warnings that touch the user. Its log in Ray's session folder stays."""
    logger = logging.getLogger("ray.data")
    for handler in list(logger.handlers):
        if type(handler).__name__ == "PlainRayHandler":
            logger.removeHandler(handler)
    if not any(isinstance(handler, WarningsTold) for handler in logger.handlers):
        logger.addHandler(WarningsTold())


class WarningsTold(logging.Handler):
    """Says those of Ray Data's warnings that a user can do something about, each once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        part = next((part for part in _TOLD if part in text), None)
        if part is not None and part not in self._said:
            self._said.add(part)
            say(f"warning of Ray Data: {' '.join(text.split())[:_LONGEST]}")
