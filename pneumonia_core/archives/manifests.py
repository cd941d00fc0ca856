"""Manifests: tables that name images. Whoever wrote one may not make us read what lies elsewhere."""

import functools
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pneumonia_core.archives.entries import (
    NOT_ALLOWED,
    ListedImage,
    UnlinkedFile,
    WholeFile,
)
from pneumonia_core.archives.named_members import NamedMembers, split_member_uri
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.files import open_file
from pneumonia_core.storage.location import OPTIONS, SCHEMES, open_location
from pneumonia_core.storage.ranges import StoredFile, stat_file
from pneumonia_core.system.hash_set import HashSet

MANIFEST_SUFFIXES: Final = (".parquet", ".csv")
# In place of a version, which no row is without: of an image that is not there, and of one that may not be named.
_ABSENT_VERSION: Final = "absent"
_NOT_ALLOWED_VERSION: Final = "forbidden"
_EVERYWHERE: Final = tuple(f"{scheme}://" for scheme in SCHEMES)
_FIRST_ROWS: Final = 1000
_AT_ONCE: Final = 256
_THREADS: Final = 16
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# `user:password@host`, with or without a scheme before it; IMG-10:00.png is a name.
_USER_INFO = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:[^?]*@")


@dataclass(frozen=True)
class ListingRules:
    """What a listing may read and carries along: columns of a manifest for the table, and the places besides
    the manifest's own folder from which its images may come."""

    carry: tuple[str, ...] = ()
    allow_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """A line of a manifest: the image's URI, where it is read if it may be, and what is carried along."""

    uri: str
    read_from: str | None
    carried: str | None


def is_manifest(uri: str) -> bool:
    return uri.lower().endswith(MANIFEST_SUFFIXES)


def column_names(text: str) -> list[str]:
    """The columns of a manifest that a user names. Raises InvalidInput where it cannot be read."""
    place = open_location(text)
    try:
        with open_file(place) as file:
            if text.lower().endswith(".parquet"):
                return list(pq.read_schema(file).names)
            return list(pacsv.open_csv(file).schema.names)
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidInput(f"{text!r}: the table cannot be read. Check its name and its format.") from error
    except OSError as error:
        raise _not_read(place.uri, error) from error


def check_rules_apply(archives: Sequence[str], rules: ListingRules) -> None:
    """Raise InvalidInput where rules for manifests are given and no archive is one."""
    if (rules.carry or rules.allow_prefixes) and not any(map(is_manifest, archives)):
        raise InvalidInput(
            "--carry and --allow-prefix go with a manifest, and no archive is one: its name ends in .parquet or .csv."
        )


def check_manifest(uri: str, rules: ListingRules) -> None:
    """Raise InvalidInput where a manifest cannot be read, lacks a column, or where none of its first
    thousand images may be read."""
    lines = list(itertools.islice(_lines(uri, rules.carry), _FIRST_ROWS))
    entries = list(_entries(lines, uri, rules, Counter()))
    if entries and all(entry.read_from is None for entry in entries):
        named = ", ".join(repr(entry.uri) for entry in entries[:3])
        raise InvalidInput(
            f"{uri!r} names images that may not be read: {named}. They must lie in the manifest's own folder or "
            "beneath an --allow-prefix, and name no credentials, options or links that lead out."
        )


def list_manifest(uri: str, rules: ListingRules, skipped: Counter[SkipReason]) -> Iterator[ListedImage]:
    """The images that a table names in its column `uri`, in its order, each once. One that may not be read, or
    that is absent, is listed too, and becomes a row that says so."""
    seen = HashSet()
    listed = functools.partial(_listed, NamedMembers())
    entries = _entries(_lines(uri, rules.carry), uri, rules, skipped)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        while some := list(itertools.islice(entries, _AT_ONCE)):
            fresh = [entry for entry in some if seen.add(entry.uri)]
            if len(fresh) < len(some):
                skipped[SkipReason.REPEATED_IN_MANIFEST] += len(some) - len(fresh)
            # A bucket answers for many at once; for files on a disk the threads cost more than they save.
            remote = any(entry.read_from and not entry.read_from.startswith("file://") for entry in fresh)
            yield from (pool.map if remote else map)(listed, fresh)


def _lines(uri: str, carry: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Each row's `uri` and carried columns, as text."""
    place = open_location(uri)
    names = ["uri", *carry]
    try:
        with open_file(place) as file:
            if uri.lower().endswith(".parquet"):
                batches: Any = pq.ParquetFile(file).iter_batches(columns=names)
            else:
                batches = pacsv.open_csv(
                    file,
                    parse_options=pacsv.ParseOptions(newlines_in_values=True),
                    # 007 is no number where it stands for a site.
                    convert_options=pacsv.ConvertOptions(
                        include_columns=names, column_types=dict.fromkeys(names, pa.string())
                    ),
                )
            for batch in batches:
                yield from zip(
                    *(batch.column(name).cast(pa.string()).to_pylist() for name in names), strict=True
                )
    except (pa.ArrowException, KeyError, UnicodeError) as error:
        also = f" and those to carry: {', '.join(carry)}" if carry else ""
        raise InvalidInput(
            f"{uri!r}: a manifest is a Parquet or CSV table in UTF-8 with a column `uri`{also}."
        ) from error
    except OSError as error:
        raise _not_read(uri, error) from error


def _not_read(uri: str, error: OSError) -> PneumoniaError:
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return InvalidInput(
            f"{uri!r}: the table cannot be read ({error_text(error)}). Check its name and who may read it."
        )
    if _is_of_the_table(uri, error):
        return InvalidInput(f"{uri!r}: the table is damaged ({error_text(error)}). Write it anew.")
    return PneumoniaError(
        f"{uri!r}: the table cannot be read ({error_text(error)}). Run the same command again when its storage answers."
    )


def _is_of_the_table(uri: str, error: OSError) -> bool:
    """Whether an error says that a table contradicts its format, for which pyarrow has no class of its own: a disk's
    error has a number, and a bucket's is ours. Of Google's and Azure's storage it is not known."""
    return error.errno is None and uri.startswith(("file://", "s3://")) and not isinstance(error, BucketError)


def _entries(
    lines: Any, manifest: str, rules: ListingRules, skipped: Counter[SkipReason]
) -> Iterator[_Entry]:
    folder = manifest.rpartition("/")[0]
    allowed = tuple(_root(place) for place in (folder, *rules.allow_prefixes))
    for text, *values in lines:
        if not text:
            skipped[SkipReason.ROW_WITHOUT_URI] += 1
            continue
        carried = json.dumps(dict(zip(rules.carry, values, strict=True))) if rules.carry else None
        uri, read_from = _judge(text, folder, allowed)
        yield _Entry(uri, read_from, carried)


def _root(text: str) -> str:
    """The folder beneath which images may lie, with links resolved, ending in a slash."""
    uri = open_location(text).uri
    if uri.startswith("file://"):
        uri = f"file://{os.path.realpath(uri.removeprefix('file://'))}"
    return uri.rstrip("/") + "/"


def trusted_image_uri(text: str, folder: str) -> str:
    """The URI of an image that a table in `folder` names, of a user who may read it wherever it is.

    Raises InvalidInput where `text` has another scheme, credentials or options.
    """
    uri, read_from = _judge(text, folder, _EVERYWHERE)
    if read_from is None:
        raise InvalidInput(
            f"{uri!r} names no image: give a path, or a URI that begins with {', '.join(_EVERYWHERE)} and has no "
            "credentials, no options and no `..`."
        )
    return uri


def _judge(text: str, folder: str, allowed: tuple[str, ...]) -> tuple[str, str | None]:
    """The URI of the image as the table shows it, and from where it is read: None where it may not be."""
    found = split_member_uri(text)
    if found is None:
        return _judge_file(text, folder, allowed)
    # The name of a member is only compared with those that the container has.
    container, name = found[0], found[1].replace("\0", "\\0")
    uri, read_from = _judge_file(container, folder, allowed)
    return f"{uri}!/{name}", None if read_from is None else f"{read_from}!/{name}"


def _judge_file(text: str, folder: str, allowed: tuple[str, ...]) -> tuple[str, str | None]:
    found = _SCHEME.match(text)
    if (found and found[1] not in SCHEMES) or _USER_INFO.match(text):
        return _without_secrets(text), None
    if found is None:
        text = f"{folder}/{text}" if not text.startswith("/") else f"file://{text}"
    scheme, _, rest = text.partition("://")
    authority, _, key = rest.partition("/")
    if "@" in authority or ":" in authority or OPTIONS.search(text) or "\0" in text:
        return _without_secrets(text), None
    if scheme == "file":
        if authority:
            return _without_secrets(text), None
        return _judge_local(f"/{key}", allowed)
    uri = f"{scheme}://{rest}"
    climbs = any(segment in (".", "..") for segment in key.split("/"))
    return (_without_secrets(uri), None) if climbs or not uri.startswith(allowed) else (uri, uri)


def _judge_local(path: str, allowed: tuple[str, ...]) -> tuple[str, str | None]:
    path = os.path.abspath(path)  # noqa: PTH100 - keeps raw text
    real = f"file://{_real_path(path)}"
    return f"file://{path}", real if real.startswith(allowed) else None


def _real_path(path: str) -> str:
    # Each folder is asked for once, not for each of its files.
    folder, name = os.path.split(path)
    if os.path.islink(path):  # noqa: PTH114 - keeps raw text
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)  # noqa: PTH118


@lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _without_secrets(text: str) -> str:
    """A URI that is refused, as it may stand in a table: without user-info, which may hold any character, and without
    all that follows a question mark."""
    address, asked, _ = text.partition("?")
    address = re.sub(r"(://|:).*@", r"\1***@", address, count=1, flags=re.DOTALL)
    return f"{address}{asked and '?***'}".replace("\0", "\\0")


def _listed(members: NamedMembers, entry: _Entry) -> ListedImage:
    if entry.read_from is None:
        return ListedImage(entry.uri, _NOT_ALLOWED_VERSION, 0, NOT_ALLOWED, entry.carried)
    named = split_member_uri(entry.read_from)
    try:
        if named is not None:
            return _listed_member(members, *named, entry)
        stored = stat_file(entry.read_from)
    except RejectedImage as rejected:
        if rejected.reason not in ("not_found", "forbidden"):
            # It may well be there as it was: with another version it would be scored anew, or rejected.
            raise PneumoniaError(
                f"{entry.uri!r}, which the manifest names, cannot be looked up: {rejected.detail}. Run the same command "
                "again when its storage answers."
            ) from rejected
        if named is not None:
            return ListedImage(entry.uri, _ABSENT_VERSION, 0, WholeFile(), entry.carried)
        stored = StoredFile(entry.read_from, 0, _ABSENT_VERSION)
    is_local = entry.read_from.startswith("file://")
    source = UnlinkedFile(entry.read_from) if is_local else WholeFile()
    return ListedImage(entry.uri, stored.version, stored.size_bytes, source, entry.carried)


def _listed_member(members: NamedMembers, container: str, name: str, entry: _Entry) -> ListedImage:
    """A member of a tar or zip. Raises RejectedImage where the container cannot be looked up."""
    found = members.find(container, name)
    if found is None:
        return ListedImage(entry.uri, _ABSENT_VERSION, 0, WholeFile(), entry.carried)
    return replace(found, uri=entry.uri, carried=entry.carried)
