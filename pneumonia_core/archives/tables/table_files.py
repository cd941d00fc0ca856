"""Tables that name images: Parquet or CSV, one file or parts in a folder, and what is wrong with one."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.files import exists, file_size, is_folder, open_file
from pneumonia_core.storage.location import Location, open_location

TABLE_SUFFIXES: Final = (".parquet", ".csv")
_ALL_PARTS: Final = ("*.parquet", "*.csv")
# What Spark and Hadoop leave beside the parts that they have finished.
_FINISHED: Final = "_SUCCESS"
_HEAD_BYTES: Final = 4096
_DELIMITERS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}
_NEARLY_URI: Final = frozenset(
    [
        "uri",
        "url",
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "image_uri",
    ]
)
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def is_table(uri: str) -> bool:
    """Whether a file or folder is a table, by its name."""
    return uri.lower().endswith(TABLE_SUFFIXES)


def stands_for_parts(table: Location) -> bool:
    """Whether a name is `FOLDER/*.parquet` or `FOLDER/*.csv`: all parts in a folder of any name."""
    return table.name in _ALL_PARTS


def table_files(table: Location) -> list[Location]:
    """The files of a table: itself, or in a folder its parts at any depth in the order of their names.

    Raises InvalidInput where a folder has
    none, and for the folder of a Delta table, PneumoniaError or OSError where the storage fails.
    """
    folder = table.parent if stands_for_parts(table) else table
    if folder is table and (_is_file(table) or not is_folder(table)):
        return [table]
    if exists(folder.child("_delta_log")):
        raise InvalidInput(
            f"{folder.uri!r} is a Delta table, whose files hold deleted rows too. Write its rows to Parquet, "
            "and give that."
        )
    suffix = next(suffix for suffix in TABLE_SUFFIXES if table.uri.lower().endswith(suffix))
    parts = [folder.child(path) for path in sorted(_paths(folder)) if path.lower().endswith(suffix)]
    if not parts:
        raise InvalidInput(f"{folder.uri!r} has no files that end in {suffix}. Check its name.")
    return parts


def _is_file(location: Location) -> bool:
    try:
        file_size(location)
    except FileNotFoundError:
        return False
    return True


def check_not_in_parts(folder: Location) -> None:
    """Raise InvalidInput where a folder that is given as an archive holds the parts of a table."""
    try:
        is_finished = exists(folder.child(_FINISHED))
    except OSError:
        # The right to list is enough for an archive.
        return
    if not is_finished:
        return
    suffixes = {suffix for path in _paths(folder) for suffix in TABLE_SUFFIXES if path.endswith(suffix)}
    if len(suffixes) == 1 and all(map(is_table, _paths(folder))):
        raise InvalidInput(
            f"{folder.uri!r} holds a table in parts. Give it as {folder.child(f'*{suffixes.pop()}').uri}."
        )


def column_names(text: str) -> list[str]:
    """The columns of a table that a user names. Raises InvalidInput where it cannot be read."""
    location = open_location(text)
    try:
        with open_file(table_files(location)[0]) as file:
            if text.lower().endswith(".parquet"):
                return list(pq.read_schema(file).names)
            return list(pacsv.open_csv(file).schema.names)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidInput(f"{text!r}: the table cannot be read. Check its name and its format.") from error
    except OSError as error:
        raise _not_read(location.uri, error) from error


def table_rows(uri: str, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    """The values of these columns in each row, as text.

    Raises InvalidInput that says what is wrong with the table, PneumoniaError where its storage fails.
    """
    try:
        for part in table_files(open_location(uri)):
            yield from _part_rows(part, names)
    except OSError as error:
        raise _not_read(uri, error) from error


def _part_rows(part: Location, names: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    try:
        with open_file(part) as file:
            is_parquet = part.uri.lower().endswith(".parquet")
            batches = _parquet_batches(file, names) if is_parquet else _csv_batches(file, names)
            for batch in batches:
                columns = (batch.column(name).cast(pa.string()).to_pylist() for name in names)
                yield from zip(*columns, strict=True)
    except (pa.ArrowException, KeyError, UnicodeError) as error:
        *carried, last = (f"`{name}`" for name in names)
        columns_needed = f"{', '.join(carried)} and {last}" if carried else last
        raise InvalidInput(
            f"{part.uri!r}: a manifest is a Parquet or CSV table in UTF-8, with commas and a column "
            f"{columns_needed}.{what_is_wrong(part)}"
        ) from error


def what_is_wrong(part: Location) -> str:
    """A sentence on what a table has instead of commas, UTF-8 and the columns that it needs.

    It begins with a space, and is empty where nothing is known.
    """
    try:
        with open_file(part) as file:
            if part.uri.lower().endswith(".parquet"):
                return _misnamed(pq.read_schema(file).names)
            return _wrong_text(file.read(_HEAD_BYTES))
    except (pa.ArrowException, OSError):
        return ""


def _wrong_text(head: bytes) -> str:
    if head.startswith(_BYTE_ORDER_MARKS) or b"\0" in head:
        return " This one is in UTF-16: save it as CSV in UTF-8."
    line = head.partition(b"\n")[0].removeprefix(b"\xef\xbb\xbf").strip()
    try:
        header = line.decode()
    except UnicodeDecodeError:
        return " This one is not in UTF-8: save it as CSV in UTF-8."
    most, called = max(_DELIMITERS.items(), key=lambda delimiter: header.count(delimiter[0]))
    if header.count(most) > header.count(","):
        return f" This one has {called} in place of commas: save it with commas."
    return _misnamed([name.strip('"') for name in header.split(",")])


def _misnamed(names: Sequence[str]) -> str:
    # Other names are not shown: where a table lacks a header, they are the values of its first row.
    nearly = [name for name in names if name != "uri" and name.strip().lower() in _NEARLY_URI]
    return f" This one has {nearly[0]!r}: call it `uri`." if nearly and "uri" not in names else ""


def _parquet_batches(file: pa.NativeFile, names: Sequence[str]) -> Iterable[pa.RecordBatch]:
    return pq.ParquetFile(file).iter_batches(columns=list(names))


def _csv_batches(file: pa.NativeFile, names: Sequence[str]) -> Iterable[pa.RecordBatch]:
    return pacsv.open_csv(
        file,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        # As text: 007 may be the name of a site.
        convert_options=pacsv.ConvertOptions(
            include_columns=list(names), column_types=dict.fromkeys(names, pa.string())
        ),
    )


def _paths(folder: Location) -> Iterator[str]:
    """The paths beneath a folder, without those that Spark, too, takes for hidden."""
    if folder.is_local:
        for root, folders, names in os.walk(folder.path):
            folders[:] = [name for name in folders if not name.startswith((".", "_"))]
            yield from (
                os.path.relpath(f"{root}/{name}", folder.path)
                for name in names
                if not name.startswith((".", "_"))
            )
        return
    for page in folder.bucket.list_files(folder.uri):
        for stored in page:
            path = stored.uri.removeprefix(f"{folder.uri}/")
            if not any(name.startswith((".", "_")) for name in path.split("/")):
                yield path


def _not_read(uri: str, error: OSError) -> PneumoniaError:
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return InvalidInput(
            f"{uri!r}: the table cannot be read ({error_text(error)}). Check its name and who may read it."
        )
    if _is_format_error(uri, error):
        return InvalidInput(f"{uri!r}: the table is damaged ({error_text(error)}). Write it again.")
    return PneumoniaError(
        f"{uri!r}: the table cannot be read ({error_text(error)}).", Remedy.WHEN_STORAGE_ANSWERS
    )


def _is_format_error(uri: str, error: OSError) -> bool:
    """Whether an error says that a table contradicts its format, for which pyarrow has no class of its own.

    A disk's error has a number, and S3's is a BucketError. For Google's and Azure's storage it cannot be
    known.
    """
    return error.errno is None and uri.startswith(("file://", "s3://")) and not isinstance(error, BucketError)
