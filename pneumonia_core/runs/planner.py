"""What becomes of each listed image: the listing joined with the table, a stretch at a time."""

import datetime
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from deltalake import DeltaTable

from pneumonia_core.archives.lister import LISTED_SCHEMA
from pneumonia_core.errors import REJECT_REASONS, PneumoniaError
from pneumonia_core.results.delta_errors import reading_error_text
from pneumonia_core.results.table import scan
from pneumonia_core.runs.inventory import (
    CHUNK_SCHEMA,
    CHUNKS_PER_FILE,
    INVENTORY_SCHEMA,
    InventoryShard,
    chunk_file_name,
)
from pneumonia_core.storage.files import open_file, write_stream
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint
from pneumonia_core.system.scratch import ScratchFolder, open_database, sql_text

P = ParamSpec("P")
T = TypeVar("T")
MAX_ATTEMPTS: Final = 5
# Rejections that another night may not repeat.
RETRYABLE_REASONS: Final = tuple(name for name, reason in REJECT_REASONS.items() if reason.retryable)
# What is planned at once: it bounds the memory of a night of any size, and costs a reading of the table each.
SEGMENTS_PER_BATCH: Final = 8
_ROWS_AT_ONCE: Final = 16_384
# What of the table says whether an image is done.
_KEY: Final = ("image_uri", "image_version")
_OUTCOME: Final = ("model_id", "status", "reject_reason", "attempt")
_LISTED_COLUMNS: Final = [name for name in LISTED_SCHEMA.names if name != "position"]


@dataclass(frozen=True)
class PlanningRules:
    """Which listed images are to be scored.

    `any_model`: a row under whatever model counts as done. `retry_rejected`: every rejection is tried
    again. `limit`: at most so many images in the run, None for all.
    """

    model_id: str
    any_model: bool = False
    retry_rejected: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Gone:
    """The images that have gone from the archives: how many, and a digest of their names in any order."""

    count: int
    digest: str


def _explained(action: Callable[P, T]) -> Callable[P, T]:
    """The action, whose reading and spilling DuckDB does: what fails there, in the words of ours."""

    @functools.wraps(action)
    def explained(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return action(*arguments, **options)
        except (duckdb.Error, FileNotFoundError) as error:
            raise PneumoniaError(
                f"the images could not be compared with the table ({reading_error_text(error)}). Nothing was committed; mend it "
                "and run the same command again."
            ) from error

    return explained


class Planner:
    """Joins what was listed with what the table holds, in DuckDB, which spills to disk.

    Its memory does not grow with the table or the listing: of both, a little is read at a time, and every join keeps
    in memory the side that is bounded, which is always written on the right.
    """

    def __init__(
        self, run_folder: Location, table: DeltaTable, rules: PlanningRules, memory_mb: int = 192
    ) -> None:
        self._run_folder = run_folder
        self._rules = rules
        self._spill = ScratchFolder("plan")
        self._database = open_database(self._spill.path, memory_mb)
        self._database.execute("SET threads=2")
        # Of what pyarrow reads it does not know the size, and would keep a table of any size in memory.
        self._database.execute("SET disabled_optimizers='join_order,build_side_probe_side'")
        self.table_is_empty = not table.file_uris()
        self._known = scan(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._spill.close()

    @_explained
    def knows_model(self) -> bool:
        """Whether the table has a row under the model."""
        return self._has_row(pc.field("model_id") == self._rules.model_id)

    @_explained
    def newest_row(self) -> datetime.datetime | None:
        """When the table's newest row was scored, None where it has no row."""
        if self.table_is_empty:
            return None
        self._scan_known("scored_at")
        ((newest_us,),) = self._database.execute("SELECT epoch_us(max(scored_at)) FROM known").fetchall()
        if newest_us is None:
            return None
        return datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=newest_us)

    @_explained
    def known_images(self, archives: Sequence[str]) -> dict[str, int]:
        """How many images the table knows of each of these archives, without those of which it knows none."""
        if self.table_is_empty or not archives:
            return {}
        self._scan_known("image_uri", "archive")
        query = f"""
            SELECT archive, count(DISTINCT image_uri) FROM known
            WHERE archive IN {_sql_tuple(archives)} GROUP BY archive
        """
        counts = dict(self._database.execute(query).fetchall())
        return {archive: counts[archive] for archive in archives if archive in counts}

    def _has_row(self, condition: pc.Expression) -> bool:
        return bool(self._known.head(1, columns=["archive"], filter=condition).num_rows)

    def check_inventory(self, batches: Sequence[InventoryShard]) -> None:
        """Raise PneumoniaError unless the inventory numbers its rows without gap or repeat."""
        rows = 0
        for record_batch in self._inventory(batches, "row_id") if batches else ():
            expected = np.arange(rows, rows + record_batch.num_rows)
            if not np.array_equal(record_batch["row_id"].to_numpy(), expected):
                raise PneumoniaError(
                    f"the inventory does not number its rows from {rows} to {expected[-1]} one by one. Nothing was "
                    "committed; run the same command with --fresh."
                )
            rows += record_batch.num_rows
        listed = sum(batch.listed for batch in batches)
        if rows != listed:
            raise PneumoniaError(
                f"the inventory has {rows} rows, but {listed} images were listed. Nothing was committed; run the "
                "same command with --fresh."
            )

    @_explained
    def plan(
        self, segments: Sequence[Path], earlier: Sequence[InventoryShard], chunk_size: int, relisted: bool
    ) -> list[InventoryShard]:
        """Plan the next stretch of the listing: writes its inventory and chunk files.

        `relisted` says that the listing began anew in a resumed run, so that images of `earlier` batches
        come again and are passed over.
        """
        planned: list[InventoryShard] = []
        for start in range(0, len(segments), SEGMENTS_PER_BATCH):
            some = segments[start : start + SEGMENTS_PER_BATCH]
            planned.append(self._plan_batch(some, [*earlier, *planned], chunk_size, relisted))
        return planned

    def _plan_batch(
        self, segments: Sequence[Path], earlier: Sequence[InventoryShard], chunk_size: int, relisted: bool
    ) -> InventoryShard:
        index = len(earlier)
        failpoint("plan.before", str(index))
        self._database.execute(
            "CREATE OR REPLACE TEMP VIEW listed AS "
            f"SELECT * FROM read_parquet({_sql_list([str(path) for path in segments])})"
        )
        if relisted and earlier:
            self._scan_inventory(earlier, "image_uri")
            self._database.execute(
                "CREATE OR REPLACE TEMP TABLE again AS "
                "SELECT i.image_uri FROM inventory i SEMI JOIN listed USING (image_uri)"
            )
            self._database.execute(
                "CREATE OR REPLACE TEMP TABLE fresh AS "
                "SELECT * FROM listed ANTI JOIN again USING (image_uri) ORDER BY position"
            )
            self._database.execute("CREATE OR REPLACE TEMP VIEW listed AS SELECT * FROM fresh")
        next_row = sum(batch.listed for batch in earlier)
        room = None
        if self._rules.limit is not None:
            room = max(self._rules.limit - sum(batch.to_score for batch in earlier), 0)
        counts = self._write_batch(index, next_row, room, chunk_size)
        failpoint("plan.after", str(index))
        first_chunk = sum(len(batch.chunk_refs()) for batch in earlier)
        return InventoryShard(
            index,
            sum(counts.values()),
            counts["score"],
            counts["unchanged"],
            counts["deferred"],
            first_chunk,
            chunk_size,
        )

    @_explained
    def superseded(self, batches: Sequence[InventoryShard]) -> frozenset[int]:
        """The rows to score that the table has got meanwhile, by another run's commit."""
        self._scan_inventory(batches, "row_id", "image_uri", "image_version", "attempt", "disposition")
        self._scan_known(*_KEY, *_OUTCOME)
        query = f"""
            SELECT i.row_id FROM known k JOIN inventory i
            ON i.image_uri = k.image_uri AND i.image_version = k.image_version
            WHERE i.disposition = 'score' AND {self._model_condition()}
            GROUP BY i.row_id, i.attempt HAVING {self._is_final()} OR max(k.attempt) >= i.attempt
        """
        return frozenset(row[0] for row in self._database.execute(query).fetchall())

    @_explained
    def write_gone(self, archives: Sequence[str], batches: Sequence[InventoryShard]) -> Gone:
        """Write gone.parquet: the images that the table has of these archives and the listing has not."""
        place = self._run_folder.child("gone.parquet")
        schema = pa.schema([("image_uri", pa.string()), ("archive", pa.string())])
        gone, digest = 0, 0
        with write_stream(place) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            if not self.table_is_empty:
                self._scan_inventory(batches, "image_uri")
                self._scan_known("image_uri", "archive")
                query = f"""
                    SELECT DISTINCT k.image_uri, k.archive, md5_number_lower(k.image_uri || chr(10) || k.archive) AS digest
                    FROM known k ANTI JOIN inventory i USING (image_uri)
                    WHERE k.archive IN {_sql_tuple(archives)}
                """
                for record_batch in self._database.sql(query).to_arrow_reader(100_000):
                    writer.write_batch(record_batch.select(schema.names).cast(schema))
                    gone += record_batch.num_rows
                    digest ^= int(np.bitwise_xor.reduce(record_batch["digest"].to_numpy()))
        return Gone(gone, f"{digest:016x}")

    def _scan_known(self, *columns: str) -> None:
        """These columns of the table as `known`, for one query."""
        self._database.register("known", _read_slowly(self._known, columns))

    def _scan_inventory(self, batches: Sequence[InventoryShard], *columns: str) -> None:
        """These columns of the inventory as `inventory`, for one query."""
        self._database.register("inventory", self._inventory(batches, *columns))

    def _inventory(self, batches: Sequence[InventoryShard], *columns: str) -> pa.RecordBatchReader:
        schema = pa.schema([INVENTORY_SCHEMA.field(name) for name in columns])

        def read() -> Iterator[pa.RecordBatch]:
            # Not as a data set of pyarrow's, which gives up where a bucket's answer breaks off.
            for batch in batches:
                with open_file(self._run_folder.child("inventory").child(batch.file)) as file:
                    for some in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=list(columns)):
                        yield pa.RecordBatch.from_arrays([some[name] for name in columns], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, read())

    def _write_batch(self, index: int, next_row: int, room: int | None, chunk_size: int) -> Counter[str]:
        """Write inventory and chunks of a batch in one pass; counts by disposition."""
        counts: Counter[str] = Counter()
        place = self._run_folder.child("inventory").child(f"{index:05d}.parquet")
        with (
            write_stream(place) as stream,
            pq.ParquetWriter(stream, INVENTORY_SCHEMA, compression="zstd") as inventory,
        ):
            chunks = _in_chunks(self._planned(next_row, room, inventory, counts), chunk_size)
            for number in itertools.count():
                if (first := next(chunks, None)) is None:
                    return counts
                rest = itertools.islice(chunks, CHUNKS_PER_FILE - 1)
                self._write_chunks(chunk_file_name(index, number), itertools.chain([first], rest))
        return counts

    def _write_chunks(self, name: str, chunks: Iterable[pa.Table]) -> None:
        """One file, each chunk a row group."""
        with (
            write_stream(self._run_folder.child("chunks").child(name)) as stream,
            pq.ParquetWriter(stream, CHUNK_SCHEMA, compression="zstd") as writer,
        ):
            for chunk in chunks:
                writer.write_table(chunk, row_group_size=chunk.num_rows)

    def _planned(
        self, next_row: int, room: int | None, inventory: pq.ParquetWriter, counts: Counter[str]
    ) -> Iterator[pa.Table]:
        for record_batch in self._joined():
            row_ids = pa.array(range(next_row, next_row + record_batch.num_rows), pa.int64())
            next_row += record_batch.num_rows
            new = pc.invert(record_batch["done"])
            numbers = pc.cumulative_sum(new.cast(pa.int64()))
            fits = (
                pc.and_(new, pc.less_equal(numbers, pa.scalar(room, pa.int64()))) if room is not None else new
            )
            if room is not None:
                room = max(room - int(pc.sum(new).as_py() or 0), 0)
            disposition = pc.if_else(fits, "score", pc.if_else(new, "deferred", "unchanged"))
            columns = {name: record_batch[name] for name in (*_LISTED_COLUMNS, "attempt")}
            table = pa.table({"row_id": row_ids, **columns, "disposition": disposition})
            table = table.select(INVENTORY_SCHEMA.names).cast(INVENTORY_SCHEMA)
            inventory.write_table(table)
            counts.update({e["values"]: e["counts"] for e in table["disposition"].value_counts().to_pylist()})
            yield table.filter(fits).select(CHUNK_SCHEMA.names)

    def _joined(self) -> Iterator[pa.RecordBatch]:
        """The listed images in order, with `done` and the number of this `attempt`."""
        if self.table_is_empty:
            # What is listed stands in the order of its positions already: sorting would hold it all.
            query = "SELECT *, false AS done, 1::SMALLINT AS attempt FROM listed"
        else:
            # An image that was away when it was last looked up was promised another try, also if it had a row before: the
            # newest row would say for ever that it is not there.
            self._scan_known(*_KEY, *_OUTCOME, "scored_at")
            same = "FILTER (WHERE k.image_version = l.image_version)"
            query = f"""
                WITH hits AS (
                    SELECT l.position, max(k.attempt) {same} AS attempts,
                           {self._is_final(same)} AND max(k.scored_at) = max(k.scored_at) {same} AS done
                    FROM known k JOIN listed l ON l.image_uri = k.image_uri
                    AND (l.image_version = k.image_version OR k.reject_reason IN ('not_found', 'forbidden'))
                    WHERE {self._model_condition()} GROUP BY l.position
                )
                SELECT listed.*, coalesce(hits.done, false) AS done,
                       (coalesce(hits.attempts, 0) + 1)::SMALLINT AS attempt
                FROM listed LEFT JOIN hits USING (position) ORDER BY position
            """
        yield from self._database.sql(query).to_arrow_reader(_ROWS_AT_ONCE)

    def _model_condition(self) -> str:
        return "true" if self._rules.any_model else f"k.model_id = {sql_text(self._rules.model_id)}"

    def _is_final(self, rows: str = "") -> str:
        """SQL over the rows that the table has of one image version, or over those of them that a FILTER leaves: nothing is
        left to try."""
        if self._rules.retry_rejected:
            return f"bool_or(k.status = 'scored') {rows}"
        reasons = ", ".join(sql_text(reason) for reason in RETRYABLE_REASONS)
        return (
            f"(bool_or(k.status = 'scored' OR k.reject_reason NOT IN ({reasons})) {rows} "
            f"OR max(k.attempt) {rows} >= {MAX_ATTEMPTS})"
        )


def _read_slowly(dataset: pads.Dataset, columns: Sequence[str]) -> pa.RecordBatchReader:
    """The columns in the order of the rows; pyarrow by itself reads a gigabyte ahead."""
    return dataset.scanner(
        columns=list(columns), batch_size=_ROWS_AT_ONCE, batch_readahead=2, fragment_readahead=1
    ).to_reader()


def _in_chunks(tables: Iterator[pa.Table], chunk_size: int) -> Iterator[pa.Table]:
    """The rows of all tables, in tables of exactly `chunk_size` rows but for the last."""
    rest = CHUNK_SCHEMA.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while rest.num_rows >= chunk_size:
            yield rest.slice(0, chunk_size)
            rest = rest.slice(chunk_size)
        rest = rest.combine_chunks()
    if rest.num_rows:
        yield rest


def _sql_tuple(texts: Sequence[str]) -> str:
    return "(" + ", ".join(sql_text(text) for text in texts) + ")"


def _sql_list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(sql_text(text) for text in texts) + "]"
