"""The one commit by which a run adds its files to the results table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.delta_errors import delta_error_text, retry_on_lost_connection
from pneumonia_core.results.schema import PARTITION
from pneumonia_core.results.table import find_table, open_table
from pneumonia_core.storage.files import file_size, make_durable
from pneumonia_core.storage.location import Location
from pneumonia_core.system.failpoints import failpoint

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


def commit(
    results: Location, planned_version: int, run_id: str, run_date: str, files: Sequence[DataFile]
) -> int:
    """Add the files to the table in one commit on top of the version that the run was planned from.

    Returns the new version. Checks before that every file is there with its size, and that the table has the
    columns of SCHEMA. Raises LostRace where another commit came first, because deltalake alone would accept
    both. Raises PneumoniaError where the log cannot be written.
    """
    table = open_table(results)
    _check_version(table, planned_version)
    actions: list[AddAction | RemoveAction] = [_add_action(results, file, run_date) for file in files]
    properties = CommitProperties(
        custom_metadata={"run_id": run_id},
        app_transactions=[Transaction(APP_ID, planned_version + 1)],
        max_commit_retries=0,
    )
    failpoint("commit.before")
    try:
        # A second request cannot commit twice: the bucket accepts a version from one writer only.
        retry_on_lost_connection(
            lambda: table.create_write_transaction(
                actions, "append", table.schema(), [PARTITION], commit_properties=properties
            )
        )
    except (DeltaError, OSError) as error:
        # The commit may have succeeded: its answer was lost and the request repeated, or only the checkpoint
        # of the log that follows it failed; a later commit writes another.
        if not committed_version(results, run_id, planned_version):
            if isinstance(error, CommitFailedError) and open_table(results).version() != planned_version:
                raise _lost_race(planned_version) from error
            raise PneumoniaError(
                f"the table's log could not be written ({delta_error_text(error)}). Nothing of this run was "
                "committed; "
                "fix "
                "that and run the same command again."
            ) from error
    # deltalake does not fsync: after a power cut the entry of a run that is recorded as committed could be
    # empty.
    make_durable(results.child("scores").child("_delta_log").child(f"{planned_version + 1:020d}.json"))
    failpoint("commit.after")
    return planned_version + 1


def _check_version(table: DeltaTable, planned_version: int) -> None:
    """Raise LostRace where the table has moved since the run was planned."""
    if table.version() != planned_version:
        raise _lost_race(planned_version)


def committed_version(results: Location, run_id: str, since_version: int) -> int | None:
    """The version in which this run was committed, by the table's log, or None."""
    table = find_table(results)
    if table is None:
        return None
    for entry in retry_on_lost_connection(
        lambda: table.history(max(table.version() - since_version, 0) or 1)
    ):
        if entry.get("run_id") == run_id:
            return int(entry["version"])
    return None


def _add_action(results: Location, file: DataFile, run_date: str) -> AddAction:
    location = results.child("scores").child(file.path)
    size = file_size(location)
    if size != file.size_bytes:
        raise PneumoniaError(
            f"{location.uri} has {size} bytes instead of {file.size_bytes}: something else changed it. "
            "Nothing of this run was committed; run the same command again."
        )
    stats = {"numRecords": file.rows, "nullCount": dict(file.null_counts)}
    return AddAction(file.path, size, {PARTITION: run_date}, file.written_at_ms, True, json.dumps(stats))


def _lost_race(planned_version: int) -> LostRace:
    return LostRace(
        f"another run has committed to the table (it is past version {planned_version}). Nothing of this run "
        "was committed. Run the same command again: it keeps what is scored and adds what the other run does "
        "not have."
    )
