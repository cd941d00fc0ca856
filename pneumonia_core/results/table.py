"""The results table: opened, read, and the one commit that a run makes."""

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import DeltaTable, Field
from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError
from deltalake.schema import PrimitiveType

from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.results.schema import PARTITION, SCHEMA
from pneumonia_core.storage import s3_client
from pneumonia_core.storage.errors import cannot_write, error_text, is_connection_error
from pneumonia_core.storage.files import exists, list_names, make_folder
from pneumonia_core.storage.location import Location


def storage_options(place: Location) -> dict[str, str]:
    """What the libraries that read Delta tables need to know besides their environment."""
    if not place.is_s3:
        return {}
    # Of two who commit the same version, the bucket itself lets one win.
    options = {"aws_conditional_put": "etag"}
    if url := s3_client.endpoint():
        options["aws_endpoint_url"] = url
        options["aws_allow_http"] = str(url.startswith("http://")).lower()
    if region := s3_client.region():
        options["aws_region"] = region
    return options


T = TypeVar("T")
# Between the attempts of one request to a bucket; deltalake itself may wait for minutes in each.
_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
_ASK_FOR_S: Final = 60.0
_COLUMN_NAME: Final = re.compile(r"^[A-Za-z]\w*$", re.ASCII)
# deltalake decodes them, and would use the table of another folder.
_MISREAD: Final = re.compile(r"%[0-9A-Fa-f]{2}|\\")
_GONE: Final = re.compile(r"Object at location (.+) not found")


def open_table(results: Location) -> DeltaTable:
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
        table = retry_on_lost_connection(
            lambda: DeltaTable(table_uri(scores), storage_options=storage_options(scores))
        )
    except TableNotFoundError:
        table = _create_table(scores)
    except (DeltaError, OSError) as error:
        if is_connection_error(error):
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


def retry_on_lost_connection(action: Callable[[], T]) -> T:
    """What the action returns, tried again where the connection to a bucket broke off: deltalake repeats what the bucket
    refuses, but not what broke off within an answer."""
    until = time.monotonic() + _ASK_FOR_S
    for pause_s in _PAUSES_S:
        try:
            return action()
        except (DeltaError, OSError) as error:
            if not is_connection_error(error) or time.monotonic() > until:
                raise
        time.sleep(pause_s)
    return action()


def table_uri(scores: Location) -> str:
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


def find_table(results: Location) -> DeltaTable | None:
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


def add_carried_columns(results: Location, names: Sequence[str]) -> DeltaTable:
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
            retry_on_lost_connection(lambda: table.alter.add_columns(missing))
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


def _create_table(scores: Location) -> DeltaTable:
    log = list_names(scores.child("_delta_log"))
    # A creation that a full disk cut short leaves a log without an entry.
    if set(list_names(scores)) - {"_delta_log"} or any(name.endswith((".json", ".parquet")) for name in log):
        raise InvalidInput(
            f"{scores.uri} holds files but is no Delta table: another program made it. Give another --results."
        )
    # deltalake would create it too, but does not say why it could not.
    make_folder(scores)
    try:
        return retry_on_lost_connection(
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


def _check_schema(scores: Location, table: DeltaTable) -> None:
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
