"""Upkeep of the table: small files joined, files that no version names deleted."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.delta_errors import delta_error_text


@dataclass(frozen=True)
class Compaction:
    """How many small files became how many larger ones."""

    files_removed: int
    files_added: int


def compact(table: DeltaTable) -> Compaction:
    """Join small files; the rows stay the same. Raises PneumoniaError where the storage fails."""
    with _changing_the_table():
        metrics = table.optimize.compact()
    return Compaction(metrics["numFilesRemoved"], metrics["numFilesAdded"])


def vacuum(table: DeltaTable, age_s: float) -> int:
    """Delete data files that no version names and that are older than `age_s` seconds; returns their number.

    Readers of versions older than that lose their files. Raises PneumoniaError where the storage fails.
    """
    with _changing_the_table():
        deleted = table.vacuum(
            retention_hours=math.ceil(age_s / 3600),
            dry_run=False,
            enforce_retention_duration=False,
            full=True,
        )
    return len(deleted)


@contextlib.contextmanager
def _changing_the_table() -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError) as error:
        raise PneumoniaError(
            f"the table could not be changed ({delta_error_text(error)}). Fix that and run the same command "
            "again."
        ) from error
