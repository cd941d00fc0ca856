"""What came of a chunk, as a worker tells the driver: one row of a table, or one Python value."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

import pyarrow as pa

from pneumonia_core.errors import Remedy
from pneumonia_core.runs.outcome.timings import StageSeconds

_STAGES: Final = pa.struct([pa.field(each.name, pa.float64()) for each in fields(StageSeconds)])
OUTCOME_SCHEMA: Final = pa.schema(
    [
        pa.field("chunk", pa.int64(), nullable=False),
        pa.field("node", pa.string(), nullable=False),
        pa.field("scored", pa.int64()),
        pa.field("rejected", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("actor", pa.string()),
        pa.field("stages", _STAGES),
        pa.field("tasks", _STAGES),
        # Null where the chunk's part is written. Exceptions lose their cause on the way through Ray Data.
        pa.field("error", pa.string()),
        pa.field("remedy", pa.string()),
        # Null where the chunk was begun.
        pa.field("not_begun", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Receipt:
    """A chunk's part is written. `node` is the id of the node that wrote it, `seconds` how long it took.

    `stages` are the seconds of the `actor` since its last receipt, of whatever chunks; `tasks` those of the
    task that decoded this one.
    """

    chunk: int
    node: str
    scored: int
    rejected: int
    seconds: float
    actor: str = ""
    stages: StageSeconds = field(default_factory=StageSeconds)
    tasks: StageSeconds = field(default_factory=StageSeconds)


@dataclass(frozen=True)
class ChunkFailure:
    """Why a chunk has no part: the text and the remedy of the error, and the node on which it failed."""

    chunk: int
    node: str
    error: str
    remedy: Remedy | None


@dataclass(frozen=True)
class NotBegun:
    """A chunk that a worker did not begin, because the run is stopping."""

    chunk: int
    node: str
    not_begun: bool = True


Outcome = Receipt | ChunkFailure | NotBegun


def outcome_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """A table of OUTCOME_SCHEMA. A remedy travels as its name."""
    rows = [asdict(outcome) for outcome in outcomes]
    for row in rows:
        remedy = row.get("remedy")
        row["remedy"] = remedy and remedy.name
    return pa.Table.from_pylist(rows, schema=OUTCOME_SCHEMA)


def outcomes(table: pa.Table) -> list[Outcome]:
    """The outcomes in a table of OUTCOME_SCHEMA."""
    return [_outcome(row) for row in table.to_pylist()]


def _outcome(row: dict[str, Any]) -> Outcome:
    chunk, node = row["chunk"], row["node"]
    if row["not_begun"]:
        return NotBegun(chunk, node)
    if row["error"] is not None:
        return ChunkFailure(chunk, node, row["error"], row["remedy"] and Remedy[row["remedy"]])
    stages, tasks = StageSeconds(**row["stages"]), StageSeconds(**row["tasks"])
    return Receipt(chunk, node, row["scored"], row["rejected"], row["seconds"], row["actor"], stages, tasks)
