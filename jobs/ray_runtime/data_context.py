"""Settings of Ray Data for one data set."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext


@contextmanager
def data_context() -> Iterator[DataContext]:
    """A copy of the settings of Ray Data, current while the block runs.

    A data set keeps the settings under which it was made. Data sets made after the block have the previous
    settings.
    """
    context = DataContext.get_current().copy()
    with DataContext.current(context):
        yield context
