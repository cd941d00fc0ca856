"""What becomes of each listed image: the listing joined with the table, one inventory shard at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pneumonia_core.archives.lister import LISTED_SCHEMA
from pneumonia_core.errors import REJECT_REASONS
from pneumonia_core.results.table_view import TableView, comparing_with_table
from pneumonia_core.runs.inventory import (
    INVENTORY_SCHEMA,
    Inventory,
    InventoryShard,
    read_inventories,
    read_inventory,
    write_shard,
)
from pneumonia_core.storage.files import write_stream
from pneumonia_core.storage.location import Location
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.failpoints import failpoint
from pneumonia_core.system.scratch import ScratchFolder

MAX_ATTEMPTS: Final = 5
# Rejections that a later run may not repeat.
RETRYABLE_REASONS: Final = tuple(name for name, reason in REJECT_REASONS.items() if reason.retryable)
# A shard bounds the memory of planning. The table is read once for each.
SEGMENTS_PER_SHARD: Final = 8
_ROWS_AT_ONCE: Final = 16_384
# The columns of the table that say whether an image is done.
_KEY: Final = ("image_uri", "image_version")
_OUTCOME: Final = ("model_id", "status", "reject_reason", "attempt", "scored_at")
_LISTED_COLUMNS: Final = [name for name in LISTED_SCHEMA.names if name != "position"]


@dataclass(frozen=True)
class PlanningRules:
    """Which listed images are to be scored.

    `any_model`: a row under another model counts as done too. `retry_rejected`: every rejected image gets
    another attempt. `limit`: the most images of the run, None for all.
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


class Planner:
    """Joins the listing with the table in DuckDB, which spills to disk.

    Its memory does not grow with the table or the listing. Both are read in small batches, and every join
    keeps only its bounded side in memory. The queries write that side on the right.
    """

    def __init__(
        self,
        run_folder: Location,
        view: TableView,
        rules: PlanningRules,
        memory_mb: int = 192,
        segments_per_shard: int = SEGMENTS_PER_SHARD,
    ) -> None:
        self._run_folder = run_folder
        self._view = view
        self._rules = rules
        self._segments_per_shard = segments_per_shard
        self._spill = ScratchFolder("plan")
        # DuckDB does not know the size of what pyarrow reads, and would keep a table of any size in memory.
        self._database = open_duckdb(
            self._spill.path, memory_mb, threads=2, disabled_optimizers="join_order,build_side_probe_side"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._spill.close()

    def interrupt(self) -> None:
        """End a query that another thread is in: it raises there."""
        self._database.interrupt()

    @comparing_with_table()
    def plan(
        self, segments: Sequence[Path], earlier: Sequence[InventoryShard], chunk_size: int, relisted: bool
    ) -> list[InventoryShard]:
        """Plan the next segments of the listing: writes their inventory and chunk files.

        `relisted` says that a resumed run lists from the start again. Images of the `earlier` shards are then
        left out.
        """
        planned: list[InventoryShard] = []
        for start in range(0, len(segments), self._segments_per_shard):
            some = segments[start : start + self._segments_per_shard]
            planned.append(self._plan_shard(some, [*earlier, *planned], chunk_size, relisted))
        return planned

    def _plan_shard(
        self, segments: Sequence[Path], earlier: Sequence[InventoryShard], chunk_size: int, relisted: bool
    ) -> InventoryShard:
        index = len(earlier)
        failpoint("plan.before", str(index))
        paths = [str(path) for path in segments]
        self._database.read_parquet(paths).create_view("listed", replace=True)
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
            self._database.table("fresh").create_view("listed", replace=True)
        next_row = sum(shard.listed for shard in earlier)
        room = None
        if self._rules.limit is not None:
            room = max(self._rules.limit - sum(shard.to_score for shard in earlier), 0)
        shard = write_shard(
            self._run_folder,
            index,
            self._planned(next_row, room),
            sum(len(shard.chunk_refs()) for shard in earlier),
            chunk_size,
        )
        failpoint("plan.after", str(index))
        return shard

    @comparing_with_table()
    def superseded(self, shards: Sequence[InventoryShard]) -> frozenset[int]:
        """The ids of the rows to score that another run has committed since they were planned."""
        self._scan_inventory(shards, "row_id", "image_uri", "image_version", "attempt", "disposition")
        self._scan_outcomes()
        query = f"""
            SELECT i.row_id FROM known k JOIN inventory i USING (image_uri)
            WHERE i.disposition = 'score'
            GROUP BY i.row_id, i.attempt
            HAVING {_newest("i")}.same AND ({self._is_final("i")} OR {_attempts("i")} >= i.attempt)
        """
        return frozenset(row[0] for row in self._database.execute(query).fetchall())

    @comparing_with_table()
    def write_gone(self, archives: Sequence[str], listed: Sequence[Inventory]) -> Gone:
        """Write gone.parquet: the images of these archives that are in the table and in no inventory."""
        location = self._run_folder.child("gone.parquet")
        schema = pa.schema([("image_uri", pa.string()), ("archive", pa.string())])
        gone, digest = 0, 0
        with write_stream(location) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
            if not self._view.is_empty:
                self._database.register("inventory", read_inventories(listed, "image_uri"))
                self._scan_images(archives)
                query = """
                    SELECT DISTINCT k.image_uri, k.archive,
                           md5_number_lower(k.image_uri || chr(10) || k.archive) AS digest
                    FROM known k ANTI JOIN inventory i USING (image_uri)
                """
                for record_batch in self._database.sql(query).to_arrow_reader(100_000):
                    writer.write_batch(record_batch.select(schema.names).cast(schema))
                    gone += record_batch.num_rows
                    digest ^= int(np.bitwise_xor.reduce(record_batch["digest"].to_numpy()))
        return Gone(gone, f"{digest:016x}")

    def _scan_outcomes(self) -> None:
        """Register the rows of the table that count, as `known`, for one query.

        `final` says that the row needs no further attempt.
        """
        rules, rows = self._rules, self._view.read(*_KEY, *_OUTCOME)
        retryable = pa.array(RETRYABLE_REASONS, pa.string())

        def outcomes() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                if not rules.any_model:
                    batch = batch.filter(pc.equal(batch["model_id"], rules.model_id))
                final = pc.equal(batch["status"], "scored")
                if not rules.retry_rejected:
                    retried = pc.is_in(batch["reject_reason"].cast(pa.string()), value_set=retryable)
                    final = pc.or_(final, pc.invert(retried))
                yield batch.append_column("final", final)

        schema = rows.schema.append(pa.field("final", pa.bool_()))
        self._database.register("known", pa.RecordBatchReader.from_batches(schema, outcomes()))

    def _scan_images(self, archives: Sequence[str]) -> None:
        """Register the images that the table has of these archives, as `known`, for one query."""
        rows = self._view.read("image_uri", "archive")
        wanted = pa.array(archives, pa.string())

        def images() -> Iterator[pa.RecordBatch]:
            for batch in rows:
                yield batch.filter(pc.is_in(batch["archive"].cast(pa.string()), value_set=wanted))

        self._database.register("known", pa.RecordBatchReader.from_batches(rows.schema, images()))

    def _scan_inventory(self, shards: Sequence[InventoryShard], *columns: str) -> None:
        """Register these columns of the inventory, as `inventory`, for one query."""
        self._database.register("inventory", read_inventory(self._run_folder, shards, *columns))

    def _planned(self, next_row: int, room: int | None) -> Iterator[pa.Table]:
        """The listed images in INVENTORY_SCHEMA, numbered from `next_row`; at most `room` to score."""
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
            yield table.select(INVENTORY_SCHEMA.names).cast(INVENTORY_SCHEMA)

    def _joined(self) -> Iterator[pa.RecordBatch]:
        """The listed images in order, with `done` and the number of this `attempt`."""
        if self._view.is_empty:
            # The listing is in the order of its positions already. Sorting would hold all of it in memory.
            query = "SELECT *, false AS done, 1::SMALLINT AS attempt FROM listed"
        else:
            # Only the newest row counts: readers take it for what is there now. An image that was missing, or
            # had another content in the meantime, is scored again, even if an older row has its score.
            self._scan_outcomes()
            query = f"""
                WITH hits AS (
                    SELECT l.position, {_attempts("l")} AS attempts,
                           {_newest("l")}.same AND {self._is_final("l")} AS done
                    FROM known k JOIN listed l USING (image_uri)
                    GROUP BY l.position
                )
                SELECT listed.*, coalesce(hits.done, false) AS done,
                       (coalesce(hits.attempts, 0) + 1)::SMALLINT AS attempt
                FROM listed LEFT JOIN hits USING (position) ORDER BY position
            """
        yield from self._database.sql(query).to_arrow_reader(_ROWS_AT_ONCE)

    def _is_final(self, listed: str) -> str:
        """SQL: whether the newest of the rows `k` of an image needs no further attempt."""
        final = f"{_newest(listed)}.final"
        return final if self._rules.retry_rejected else f"({final} OR {_attempts(listed)} >= {MAX_ATTEMPTS})"


def _newest(listed: str) -> str:
    """SQL: the newest of the rows `k` of an image: whether it is `final` and of the `same` version as listed.

    `listed` is the alias of the listing's table.
    """
    row = f"{{'same': k.image_version = {listed}.image_version, 'final': k.final}}"
    return f"arg_max({row}, (k.scored_at, k.attempt))"


def _attempts(listed: str) -> str:
    """SQL: how many attempts the rows `k` of an image tell of its version as listed; null for none."""
    return f"max(k.attempt) FILTER (WHERE k.image_version = {listed}.image_version)"
