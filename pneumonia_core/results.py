"""The results table: opened, read, and the one commit that a run makes."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, Field, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, DeltaProtocolError, TableNotFoundError
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction, RemoveAction

from pneumonia_core.columns import PARTITION, SCHEMA
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.failpoints import failpoint
from pneumonia_core.places import (
    Place,
    broke_off,
    cannot_write,
    error_text,
    exists,
    file_size,
    list_names,
    make_durable,
    make_folder,
    storage_options,
)

T = TypeVar("T")

# Between the attempts of one request to a bucket; deltalake itself may wait for minutes in each.
_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
_ASK_FOR_S: Final = 60.0
_COLUMN_NAME: Final = re.compile(r"^[A-Za-z]\w*$", re.ASCII)
# deltalake decodes them, and would use the table of another folder.
_MISREAD: Final = re.compile(r"%[0-9A-Fa-f]{2}|\\")
_GONE: Final = re.compile(r"Object at location (.+) not found")
APP_ID: Final = "pneumonia-score"


@dataclass(frozen=True)
class DataFile:
    """A finished Parquet file under scores/, `path` relative to it, ready to be named in the log."""

    path: str
    size_bytes: int
    rows: int
    null_counts: Mapping[str, int]
    written_at_ms: int


class LostRace(PneumoniaError):
    """Another run committed to the table after this one was planned."""


def open_table(results: Place) -> DeltaTable:
    """The table under a results place, created empty where there is none.

    Raises InvalidInput where something else stands in its place.
    """
    scores = results.child("scores")
    if not (scores.is_local or scores.is_s3):
        raise InvalidInput(
            f"{results.uri}: results stand on a disk or in S3. Give a local path or s3://BUCKET/KEY."
        )
    if _MISREAD.search(scores.path):
        raise InvalidInput(
            f"{results.uri}: deltalake takes a path with a backslash or a % as in %20 for another one. Give another "
            "--results."
        )
    try:
        table = asked_again(lambda: DeltaTable(table_uri(scores), storage_options=storage_options(scores)))
    except TableNotFoundError:
        table = _create_table(scores)
    except (DeltaError, OSError) as error:
        if broke_off(error):
            raise PneumoniaError(
                f"{scores.uri}: the table could not be read ({error_text(error)}). Run the same command again when "
                "the storage answers."
            ) from error
        raise InvalidInput(
            f"{scores.uri}: cannot be opened as a Delta table ({error_text(error)}). "
            "Restore it, or give another --results."
        ) from error
    _check_schema(scores, table)
    return table


def asked_again(action: Callable[[], T]) -> T:
    """What the action returns, tried again where the connection to a bucket broke off: deltalake repeats what the bucket
    refuses, but not what broke off within an answer."""
    until = time.monotonic() + _ASK_FOR_S
    for pause_s in _PAUSES_S:
        try:
            return action()
        except (DeltaError, OSError) as error:
            if not broke_off(error) or time.monotonic() > until:
                raise
        time.sleep(pause_s)
    return action()


def table_uri(scores: Place) -> str:
    """The table's location as deltalake takes it."""
    return scores.path if scores.is_local else scores.uri


def scan(table: DeltaTable) -> pads.Dataset:
    """The rows of the table, to be read by column. Raises InvalidInput where another program has changed how they are
    stored, by deletion vectors for example."""
    try:
        return table.to_pyarrow_dataset()
    except DeltaProtocolError as error:
        raise InvalidInput(
            f"{table.table_uri}: another program has given the table a feature that this one cannot read "
            f"({error_text(error)}). Rewrite the table without it, or give another --results."
        ) from error


def reading_error_text(error: Exception) -> str:
    """What an error says that came of reading the table, in a few words."""
    if found := _GONE.search(str(error)):
        return f"its file {found[1]} is gone: another program has removed it"
    if isinstance(error, FileNotFoundError) and not error.errno:
        return f"{error} is gone"
    return error_text(error)


def find_table(results: Place) -> DeltaTable | None:
    """The table under a results place, or None."""
    scores = results.child("scores")
    try:
        found = exists(scores.child("_delta_log"))
    except OSError as error:
        raise PneumoniaError(
            f"{scores.uri}: the table could not be read ({error_text(error)}). Mend it and run the same command again."
        ) from error
    return open_table(results) if found else None


def check_carried(names: Sequence[str]) -> None:
    """Raise InvalidInput where columns of a manifest cannot become columns of the table."""
    own = {field.name for field in SCHEMA.fields} | {"uri"}
    for name in names:
        if name in own or not _COLUMN_NAME.match(name):
            raise InvalidInput(
                f"--carry {name!r}: a carried column has a name of letters, digits and _ that the table does not "
                "have itself. Rename it in the manifest."
            )


def add_carried_columns(results: Place, names: Sequence[str]) -> DeltaTable:
    """The table, with a nullable text column for each of these names."""
    table = open_table(results)
    present = {field.name: field for field in table.schema().fields}
    for name in names:
        if name in present and present[name].type != PrimitiveType("string"):
            raise InvalidInput(f"--carry {name!r}: the table has a column of that name that is no text.")
    missing = [
        Field(name, PrimitiveType("string"), metadata={"comment": "Carried over from the manifest"})
        for name in names
        if name not in present
    ]
    if missing:
        try:
            asked_again(lambda: table.alter.add_columns(missing))
        except (DeltaError, OSError) as error:
            raise PneumoniaError(
                f"the table did not take the columns to carry ({error_text(error)}). Run the same command again."
            ) from error
    return open_table(results)


def with_carried(rows: pa.Table, carried: pa.ChunkedArray) -> pa.Table:
    """The rows with the columns that their JSON objects `carried` name."""
    if carried.null_count == len(carried):
        return rows
    values = [json.loads(text) if text else {} for text in carried.to_pylist()]
    for name in dict.fromkeys(name for value in values for name in value):
        rows = rows.append_column(name, pa.array([value.get(name) for value in values], pa.string()))
    return rows


def commit(
    results: Place, planned_version: int, run_id: str, run_date: str, files: Sequence[DataFile]
) -> int:
    """Add the files to the table in one commit on top of the version that the run was planned from.

    Returns the new version. Raises LostRace where another commit came first: deltalake alone would
    accept both. Every file is checked to be there with its size, and the table to have our schema.
    """
    table = open_table(results)
    check_version(table, planned_version)
    actions: list[AddAction | RemoveAction] = [_add_action(results, file, run_date) for file in files]
    properties = CommitProperties(
        custom_metadata={"run_id": run_id},
        app_transactions=[Transaction(APP_ID, planned_version + 1)],
        max_commit_retries=0,
    )
    failpoint("commit.before")
    try:
        # Asked again it cannot commit twice: the bucket takes a version from one writer only.
        asked_again(
            lambda: table.create_write_transaction(
                actions, "append", table.schema(), [PARTITION], commit_properties=properties
            )
        )
    except (DeltaError, OSError) as error:
        # It may have been taken: its answer was lost and the request repeated, or what comes after a commit, a checkpoint
        # of the log, failed, and the next one is made anew.
        if not committed_version(results, run_id, planned_version):
            if isinstance(error, CommitFailedError) and open_table(results).version() != planned_version:
                raise _lost_race(planned_version) from error
            raise PneumoniaError(
                f"the table's log could not be written ({error_text(error)}). Nothing was committed; mend it and run "
                "the same command again."
            ) from error
    # deltalake leaves it to the system when: a power cut must not leave an empty entry of a run that says it is committed.
    make_durable(results.child("scores").child("_delta_log").child(f"{planned_version + 1:020d}.json"))
    failpoint("commit.after")
    return planned_version + 1


def check_version(table: DeltaTable, planned_version: int) -> None:
    """Raise LostRace where the table has moved since the run was planned."""
    if table.version() != planned_version:
        raise _lost_race(planned_version)


def committed_version(results: Place, run_id: str, since_version: int) -> int | None:
    """The version in which this run was committed, or None: the log is asked, not the run's own file."""
    table = find_table(results)
    if table is None:
        return None
    for entry in asked_again(lambda: table.history(max(table.version() - since_version, 0) or 1)):
        if entry.get("run_id") == run_id:
            return int(entry["version"])
    return None


def _create_table(scores: Place) -> DeltaTable:
    log = list_names(scores.child("_delta_log"))
    # A creation that a full disk cut short leaves a log without an entry.
    if set(list_names(scores)) - {"_delta_log"} or any(name.endswith((".json", ".parquet")) for name in log):
        raise InvalidInput(
            f"{scores.uri} holds files but is no Delta table: another program made it. Give another --results."
        )
    # deltalake would create it too, but does not say why it could not.
    make_folder(scores)
    try:
        return asked_again(
            lambda: DeltaTable.create(
                table_uri(scores),
                SCHEMA,
                storage_options=storage_options(scores),
                mode="ignore",
                partition_by=[PARTITION],
                name="scores",
                description="Chest X-ray scores, one row per image and run. Research use only: not a medical device.",
            )
        )
    except (DeltaError, OSError) as error:
        raise cannot_write(scores, "cannot create the results table", error) from error


def _check_schema(scores: Place, table: DeltaTable) -> None:
    """The table's own columns in order; later versions may have added nullable ones behind them."""
    actual = [(field.name, field.type) for field in table.schema().fields]
    expected = [(field.name, field.type) for field in SCHEMA.fields]
    added = table.schema().fields[len(expected) :]
    if (
        actual[: len(expected)] != expected
        or not all(field.nullable for field in added)
        or table.metadata().partition_columns != [PARTITION]
    ):
        raise InvalidInput(
            f"{scores.uri} is a Delta table, but not one of pneumonia's: its columns differ. Give another --results."
        )


def _add_action(results: Place, file: DataFile, run_date: str) -> AddAction:
    place = results.child("scores").child(file.path)
    size = file_size(place)
    if size != file.size_bytes:
        raise PneumoniaError(
            f"{place.uri} has {size} bytes instead of {file.size_bytes}: something else changed it. "
            "Nothing was committed; run the same command again."
        )
    stats = {"numRecords": file.rows, "nullCount": dict(file.null_counts)}
    return AddAction(file.path, size, {PARTITION: run_date}, file.written_at_ms, True, json.dumps(stats))


def _lost_race(planned_version: int) -> LostRace:
    return LostRace(
        f"another run committed to the table (it is past version {planned_version}) while this one was at work. "
        "Nothing of this run was committed. Run the same command again: it keeps what is scored and adds what "
        "the other run does not have."
    )
