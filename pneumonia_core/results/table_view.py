"""Questions to the results table: which models and images it knows, and when its newest row was scored."""

import contextlib
import datetime
import functools
from collections.abc import Iterator, Sequence
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.table import scan
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.scratch import ScratchFolder

_ROWS_AT_ONCE: Final = 16_384
_MEMORY_MB: Final = 192


@contextlib.contextmanager
def comparing_with_table() -> Iterator[None]:
    """Raise PneumoniaError where the table cannot be read, or DuckDB cannot spill. Also a decorator."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise PneumoniaError(
            f"the images could not be compared with the table ({reading_error_text(error)}). Nothing of "
            "this run was committed. Fix that and run the same command again."
        ) from error


class TableView:
    """The rows of the results table at the version at which it was opened.

    Its memory does not grow with the table. `since` is the table at an earlier version: rows of files that it
    has are left out.

    Each question raises PneumoniaError where the table cannot be read.
    """

    def __init__(self, table: DeltaTable, since: DeltaTable | None = None) -> None:
        self.version = table.version()
        self.is_empty = not table.file_uris()
        rows = scan(table)
        self._rows = rows if since is None else _without_files(rows, scan(since))

    @comparing_with_table()
    def knows_model(self, model_id: str) -> bool:
        """Whether the table has a row under this model."""
        return bool(self._rows.head(1, columns=["archive"], filter=pc.field("model_id") == model_id).num_rows)

    def newest_row(self) -> datetime.datetime | None:
        """When the newest row was scored (UTC), None for a table without rows. The table is read once."""
        return self._newest_row

    @functools.cached_property
    @comparing_with_table()
    def _newest_row(self) -> datetime.datetime | None:
        newest: datetime.datetime | None = None
        for batch in self.read("scored_at"):
            latest = pc.max(batch["scored_at"]).as_py()
            if latest is not None and (newest is None or latest > newest):
                newest = latest
        return newest

    @comparing_with_table()
    def known_images(self, archives: Sequence[str]) -> dict[str, int]:
        """How many images the table has of each of these archives, without archives of which it has none."""
        if self.is_empty or not archives:
            return {}
        query = """
            SELECT archive, count(DISTINCT image_uri) FROM known
            WHERE archive IN (SELECT unnest(?::VARCHAR[])) GROUP BY archive
        """
        with ScratchFolder("known") as spill, open_duckdb(spill, _MEMORY_MB, threads=2) as database:
            database.register("known", self.read("image_uri", "archive"))
            counts = dict(database.execute(query, [list(archives)]).fetchall())
        return {archive: counts[archive] for archive in archives if archive in counts}

    def read(self, *columns: str) -> pa.RecordBatchReader:
        """These columns of all rows, to be read once; pyarrow by itself reads a gigabyte ahead."""
        return self._rows.scanner(
            columns=list(columns), batch_size=_ROWS_AT_ONCE, batch_readahead=2, fragment_readahead=1
        ).to_reader()


def _without_files(rows: pads.FileSystemDataset, earlier: pads.FileSystemDataset) -> pads.FileSystemDataset:
    """The rows of those files that are not among the earlier ones."""
    known = {fragment.path for fragment in earlier.get_fragments()}
    added = [fragment for fragment in rows.get_fragments() if fragment.path not in known]
    return pads.FileSystemDataset(added, rows.schema, rows.format, rows.filesystem)
