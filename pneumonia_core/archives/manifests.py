"""Manifests: tables that name images in a column `uri`."""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pneumonia_core.archives.entries import NOT_ALLOWED, ListedImage, UnlinkedFile, WholeFile
from pneumonia_core.archives.manifest_uris import NamedImage, allowed_folders, named_image
from pneumonia_core.archives.named_members import NamedMembers, split_member_uri
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.files import open_file
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.patience import heed, heeded
from pneumonia_core.storage.ranges import stat_file
from pneumonia_core.system.hash_set import HashSet

MANIFEST_SUFFIXES: Final = (".parquet", ".csv")
# What the table shows in place of the version of an image that is not there, or that the manifest may not
# name.
ABSENT_VERSION: Final = "absent"
_NOT_ALLOWED_VERSION: Final = "forbidden"
# Columns that a manifest may carry without values: scoring fills them from each source, with this field of
# `contract.Source`.
SOURCE_MODE_COLUMN: Final = "source_mode"
SOURCE_SEX_COLUMN: Final = "source_sex"
SOURCE_AGE_COLUMN: Final = "source_age_years"
SOURCE_COLUMNS: Final = {
    SOURCE_MODE_COLUMN: "mode",
    SOURCE_SEX_COLUMN: "sex",
    SOURCE_AGE_COLUMN: "age_years",
}
_FIRST_ROWS: Final = 1000
_AT_ONCE: Final = 256
_THREADS: Final = 16


@dataclass(frozen=True)
class ListingRules:
    """What a listing takes from a manifest.

    `carry` are its columns that go to the table, `allow_prefixes` the folders besides its own in which its
    images may be.
    """

    carry: tuple[str, ...] = ()
    allow_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """A line of a manifest: the image that it names, and a JSON object of the carried columns."""

    image: NamedImage
    carried: str | None


def is_manifest(uri: str) -> bool:
    """Whether an archive is a manifest, by its name."""
    return uri.lower().endswith(MANIFEST_SUFFIXES)


def column_names(text: str) -> list[str]:
    """The columns of a manifest that a user names. Raises InvalidInput where it cannot be read."""
    location = open_location(text)
    try:
        with open_file(location) as file:
            if text.lower().endswith(".parquet"):
                return list(pq.read_schema(file).names)
            return list(pacsv.open_csv(file).schema.names)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidInput(f"{text!r}: the table cannot be read. Check its name and its format.") from error
    except OSError as error:
        raise _not_read(location.uri, error) from error


def check_rules_apply(archives: Sequence[str], rules: ListingRules) -> None:
    """Raise InvalidInput where rules for manifests are given and no archive is one."""
    if (rules.carry or rules.allow_prefixes) and not any(map(is_manifest, archives)):
        raise InvalidInput(
            "columns to carry and allowed prefixes are for a manifest, a table whose name ends in .parquet "
            "or .csv, and no archive is one.",
            Remedy.NAME_MANIFEST,
        )


def check_manifest(uri: str, rules: ListingRules) -> None:
    """Raise InvalidInput where a manifest cannot be read, lacks a column, or where none of its first
    thousand images may be read."""
    rows = list(itertools.islice(_rows(uri, rules.carry), _FIRST_ROWS))
    images = [line.image for line in _lines(rows, uri, rules, Counter())]
    if images and all(image.read_from is None for image in images):
        named = ", ".join(repr(image.uri) for image in images[:3])
        raise InvalidInput(
            f"{uri!r} names images that may not be read: {named}. An image must be in the manifest's own "
            "folder or under an allowed prefix, and its name must have no credentials, no options and no "
            "link that leads out.",
            Remedy.ALLOW_PREFIX,
        )


def list_manifest(
    uri: str, rules: ListingRules, skipped: Counter[SkipReason], after: str | None = None
) -> Iterator[ListedImage]:
    """The images that a table names in its column `uri`, in its order, each once.

    With `after`, only those that follow this image, unless the table does not name it any more.

    An image that may not be read or is not there is listed too, and becomes a row that says so. Raises
    InvalidInput for a bad table, PneumoniaError where the storage of the table or of an image fails.
    """
    lines, seen = _lines_after(uri, rules, skipped, after)
    listed = functools.partial(_listed, NamedMembers())
    with ThreadPoolExecutor(_THREADS, "manifest", heed, (heeded(),)) as pool:
        while some := list(itertools.islice(lines, _AT_ONCE)):
            fresh = [line for line in some if seen.add(line.image.uri)]
            if len(fresh) < len(some):
                skipped[SkipReason.REPEATED_IN_MANIFEST] += len(some) - len(fresh)
            # A bucket answers many requests at once. For files on a disk, threads cost more than they save.
            yield from (pool.map if any(map(_is_remote, fresh)) else map)(listed, fresh)


def _lines_after(
    uri: str, rules: ListingRules, skipped: Counter[SkipReason], after: str | None
) -> tuple[Iterator[_Line], HashSet]:
    """The lines that follow the image `after`, and the images named before; all where it is not named."""
    seen = HashSet()
    passed = _lines(_rows(uri, rules.carry), uri, rules, Counter())
    for line in passed if after is not None else ():
        seen.add(line.image.uri)
        if line.image.uri == after:
            return passed, seen
    return _lines(_rows(uri, rules.carry), uri, rules, skipped), HashSet()


def _is_remote(line: _Line) -> bool:
    return line.image.read_from is not None and not line.image.read_from.startswith("file://")


def _rows(uri: str, carry: Sequence[str]) -> Iterator[tuple[str | None, ...]]:
    """Each row's `uri` and carried columns, as text."""
    location = open_location(uri)
    names = ["uri", *carry]
    try:
        with open_file(location) as file:
            is_parquet = uri.lower().endswith(".parquet")
            batches = _parquet_batches(file, names) if is_parquet else _csv_batches(file, names)
            for batch in batches:
                columns = (batch.column(name).cast(pa.string()).to_pylist() for name in names)
                yield from zip(*columns, strict=True)
    except (pa.ArrowException, KeyError, UnicodeError) as error:
        also = f" and those to carry: {', '.join(carry)}" if carry else ""
        raise InvalidInput(
            f"{uri!r}: a manifest is a Parquet or CSV table in UTF-8 with a column `uri`{also}."
        ) from error
    except OSError as error:
        raise _not_read(uri, error) from error


def _parquet_batches(file: pa.NativeFile, names: list[str]) -> Iterable[pa.RecordBatch]:
    return pq.ParquetFile(file).iter_batches(columns=names)


def _csv_batches(file: pa.NativeFile, names: list[str]) -> Iterable[pa.RecordBatch]:
    return pacsv.open_csv(
        file,
        parse_options=pacsv.ParseOptions(newlines_in_values=True),
        # As text: 007 may be the name of a site.
        convert_options=pacsv.ConvertOptions(
            include_columns=names, column_types=dict.fromkeys(names, pa.string())
        ),
    )


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


def _lines(
    rows: Iterable[tuple[str | None, ...]], manifest: str, rules: ListingRules, skipped: Counter[SkipReason]
) -> Iterator[_Line]:
    folder = manifest.rpartition("/")[0]
    allowed = allowed_folders(folder, rules.allow_prefixes)
    for text, *values in rows:
        if not text:
            skipped[SkipReason.ROW_WITHOUT_URI] += 1
            continue
        carried = json.dumps(dict(zip(rules.carry, values, strict=True))) if rules.carry else None
        yield _Line(named_image(text, folder, allowed), carried)


def _listed(members: NamedMembers, line: _Line) -> ListedImage:
    image = line.image
    if image.read_from is None:
        return ListedImage(image.uri, _NOT_ALLOWED_VERSION, 0, NOT_ALLOWED, line.carried)
    try:
        found = _find(members, image.read_from)
    except RejectedImage as rejected:
        if rejected.reason not in ("not_found", "forbidden"):
            # It may be there, unchanged: under another version it would be scored again, or rejected.
            raise PneumoniaError(
                f"{image.uri!r}, which the manifest names, cannot be looked up: {rejected.detail}.",
                Remedy.WHEN_STORAGE_ANSWERS,
            ) from rejected
        found = None
    if found is None:
        found = ListedImage(image.uri, ABSENT_VERSION, 0, _whole_file(image.read_from))
    return replace(found, uri=image.uri, carried=line.carried)


def _find(members: NamedMembers, uri: str) -> ListedImage | None:
    """A file, or a member of a tar or zip; None for a member that is not there. Raises RejectedImage."""
    member = split_member_uri(uri)
    if member is not None:
        return members.find(*member)
    stored = stat_file(uri)
    return ListedImage(uri, stored.version, stored.size_bytes, _whole_file(uri))


def _whole_file(uri: str) -> UnlinkedFile | WholeFile:
    return UnlinkedFile(uri) if uri.startswith("file://") else WholeFile()
