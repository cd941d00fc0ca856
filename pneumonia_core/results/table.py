"""The results table: found, created, opened, scanned."""

import json
import re
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, Field
from deltalake.exceptions import DeltaError, DeltaProtocolError, TableNotFoundError
from deltalake.schema import PrimitiveType

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.results.delta_errors import (
    as_os_error,
    delta_error_text,
    is_connection_error,
    retry_on_lost_connection,
)
from pneumonia_core.results.schema import ADDED_COLUMNS, PARTITION, SCHEMA
from pneumonia_core.storage.errors import cannot_write, error_text
from pneumonia_core.storage.files import exists, list_names, make_folder
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.hard_links import check_hard_links
from pneumonia_core.storage.s3 import settings as s3_settings
from pneumonia_core.system.proxies import never_proxy_loopback

_COLUMN_NAME: Final = re.compile(r"^[A-Za-z]\w*$", re.ASCII)
# deltalake decodes these, and would use the table of another folder.
_MISREAD: Final = re.compile(r"%[0-9A-Fa-f]{2}|\\")


def open_table(results: Location) -> DeltaTable:
    """The table of a results folder, created empty where there is none.

    Raises InvalidInput where the folder cannot hold one, PneumoniaError where the storage fails.
    """
    scores = results.child("scores")
    if not (scores.is_local or scores.is_s3):
        raise InvalidInput(
            f"{results.uri}: results are kept on a disk or in S3. Give a local path or s3://BUCKET/KEY."
        )
    if _MISREAD.search(scores.path):
        raise InvalidInput(
            f"{results.uri}: deltalake misreads paths with a backslash or a percent escape such as %20.",
            Remedy.OTHER_RESULTS,
        )
    try:
        table = _open(scores)
    except TableNotFoundError:
        table = _create_table(scores)
    except (DeltaError, OSError) as error:
        if is_connection_error(error):
            raise PneumoniaError(
                f"{scores.uri}: the table could not be read ({delta_error_text(error)}). Run the same "
                "command again "
                "when the storage answers."
            ) from error
        raise InvalidInput(
            f"{scores.uri}: cannot be opened as a Delta table ({delta_error_text(error)}). Restore it, or "
            "choose another "
            "folder.",
            Remedy.OTHER_RESULTS,
        ) from error
    _check_schema(scores, table)
    return table


def _open(scores: Location) -> DeltaTable:
    return retry_on_lost_connection(
        lambda: DeltaTable(table_uri(scores), storage_options=storage_options(scores))
    )


def storage_options(location: Location) -> dict[str, str]:
    """Options for libraries that read Delta tables, beside the variables that they read themselves."""
    if not location.is_s3:
        return {}
    s3_settings.share_ca_bundle()
    # Of two processes that commit the same version, the bucket lets one win.
    options = {
        "aws_conditional_put": "etag",
        "aws_request_payer": _as_option(s3_settings.requester_pays()),
        "aws_skip_signature": _as_option(s3_settings.is_anonymous()),
        "aws_virtual_hosted_style_request": _as_option(s3_settings.has_virtual_hosts()),
    }
    if url := s3_settings.endpoint_of(location.path.partition("/")[0]):
        never_proxy_loopback(url)
        options["aws_endpoint_url"] = url
        options["aws_allow_http"] = _as_option(url.startswith("http://"))
    if region := s3_settings.region():
        options["aws_region"] = region
    return options


def _as_option(value: bool) -> str:
    return str(value).lower()


def table_uri(scores: Location) -> str:
    """The table's location as deltalake takes it."""
    return scores.path if scores.is_local else scores.uri


def scan(table: DeltaTable) -> pads.FileSystemDataset:
    """The rows of the table, to be read by column.

    Raises InvalidInput where another program has given the table a feature that pyarrow cannot read, such as
    deletion vectors.
    """
    try:
        return table.to_pyarrow_dataset()
    except DeltaProtocolError as error:
        raise InvalidInput(
            f"{table.table_uri}: another program has given the table a feature that this one cannot read "
            f"({delta_error_text(error)}). Rewrite the table without it, or use another.",
            Remedy.OTHER_RESULTS,
        ) from error


def find_table(results: Location) -> DeltaTable | None:
    """The table of a results folder, or None where it has none. Raises as `open_table`."""
    scores = results.child("scores")
    try:
        found = exists(scores.child("_delta_log"))
    except OSError as error:
        raise PneumoniaError(
            f"{scores.uri}: the table could not be read ({error_text(error)}). Fix that and run the same "
            "command again."
        ) from error
    return open_table(results) if found else None


def table_at(results: Location, version: int) -> DeltaTable | None:
    """The table at an earlier version; None where its log does not go back so far. Raises as `open_table`."""
    table = existing_table(results)
    try:
        retry_on_lost_connection(lambda: table.load_as_version(version))
    except (DeltaError, OSError) as error:
        if is_connection_error(error):
            raise PneumoniaError(
                f"{results.uri}: the table could not be read ({delta_error_text(error)}).",
                Remedy.WHEN_STORAGE_ANSWERS,
            ) from error
        return None
    return table


def existing_table(results: Location) -> DeltaTable:
    """The table of a results folder. Raises InvalidInput where it has none, else as `open_table`."""
    table = find_table(results)
    if table is None:
        raise InvalidInput(f"{results.uri} has no results.", Remedy.SCORED_RESULTS)
    return table


def check_carried(names: Sequence[str]) -> None:
    """Raise InvalidInput where columns of a manifest cannot become columns of the table."""
    own = {field.name for field in SCHEMA.fields} | {"uri"}
    for name in names:
        if name in own or not _COLUMN_NAME.match(name):
            raise InvalidInput(
                f"the column {name!r} cannot be carried: its name must consist of letters, digits and _, "
                "and the table "
                "must not have such a column itself. Rename it in the manifest."
            )


def add_missing_columns(results: Location, names: Sequence[str]) -> DeltaTable:
    """The table with all columns of SCHEMA and a nullable text column for each of these names.

    A table that an earlier version made gets the columns that this one added. Raises InvalidInput where the
    table has a column of another type, PneumoniaError where the storage fails.
    """
    table = open_table(results)
    present = {field.name: field for field in table.schema().fields}
    for name in names:
        if name in present and present[name].type != PrimitiveType("string"):
            raise InvalidInput(
                f"the column {name!r} cannot be carried: the table has a column of that name that is not "
                "text. Rename it "
                "in the manifest."
            )
    columns = [field for field in SCHEMA.fields if field.name in ADDED_COLUMNS] + [
        Field(name, PrimitiveType("string"), metadata={"comment": "Carried over from the manifest"})
        for name in names
    ]
    missing = [column for column in columns if column.name not in present]
    if missing:
        try:
            retry_on_lost_connection(lambda: table.alter.add_columns(missing))
        except (DeltaError, OSError) as error:
            # Another run may have added them at the same moment.
            if {column.name for column in missing} - {f.name for f in open_table(results).schema().fields}:
                raise PneumoniaError(
                    f"columns could not be added to the table ({delta_error_text(error)}). Run the same "
                    "command again."
                ) from error
    return open_table(results)


def with_carried(rows: pa.Table, carried: pa.ChunkedArray) -> pa.Table:
    """The rows with a text column for each key of their JSON objects `carried`."""
    if carried.null_count == len(carried):
        return rows
    values = [json.loads(text) if text else {} for text in carried.to_pylist()]
    for name in dict.fromkeys(name for value in values for name in value):
        rows = rows.append_column(name, pa.array([value.get(name) for value in values], pa.string()))
    return rows


def _create_table(scores: Location) -> DeltaTable:
    log = list_names(scores.child("_delta_log"))
    # A creation that was cut short by a full disk leaves a log without an entry.
    if set(list_names(scores)) - {"_delta_log"} or any(name.endswith((".json", ".parquet")) for name in log):
        raise InvalidInput(
            f"{scores.uri} holds files but is not a Delta table: another program made it.",
            Remedy.OTHER_RESULTS,
        )
    # deltalake would create it too, but does not say why it cannot.
    make_folder(scores)
    try:
        if scores.is_local:
            check_hard_links(scores)
        if scores.is_s3:
            # Here, because botocore takes a while to import, and only S3 needs it.
            from pneumonia_core.storage.s3.conditions import check_conditional_writes

            check_conditional_writes(scores.uri)
        return retry_on_lost_connection(
            lambda: DeltaTable.create(
                table_uri(scores),
                SCHEMA,
                storage_options=storage_options(scores),
                mode="ignore",
                partition_by=[PARTITION],
                # Another attempt would add a second entry to a log that has one already.
                commit_properties=CommitProperties(max_commit_retries=0),
                name="scores",
                description="Chest X-ray scores, one row per image and run. "
                "Research use only: not a medical device.",
            )
        )
    except (DeltaError, OSError) as error:
        # The table may be there: the answer was lost and the request repeated, or another run created it.
        try:
            return _open(scores)
        except (DeltaError, OSError):
            raise cannot_write(scores.uri, "cannot create the results table", as_os_error(error)) from error


def _check_schema(scores: Location, table: DeltaTable) -> None:
    """Raise InvalidInput unless the table has the columns of the first version, in any order.

    Others must be nullable: a later version or another program has added them. Those of ADDED_COLUMNS have
    their types.
    """
    actual = {field.name: field for field in table.schema().fields}
    expected = {field.name: field.type for field in SCHEMA.fields}
    first = expected.keys() - set(ADDED_COLUMNS)
    if (
        not first <= actual.keys()
        or any(actual[name].type != kind for name, kind in expected.items() if name in actual)
        or not all(actual[name].nullable for name in actual.keys() - first)
        or table.metadata().partition_columns != [PARTITION]
    ):
        raise InvalidInput(
            f"{scores.uri} is a Delta table with other columns than those of scores.", Remedy.OTHER_RESULTS
        )
