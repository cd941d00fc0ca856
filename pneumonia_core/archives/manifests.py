"""Manifests: tables that name images in a column `uri`."""

import functools
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from pneumonia_core.archives.entries import OTHER_FORM, ListedImage, UnlinkedFile, WholeFile
from pneumonia_core.archives.named_members import NamedMembers, split_member_uri
from pneumonia_core.archives.skipped import SkipReason
from pneumonia_core.archives.tables.image_uris import NamedImage, allowed_folders, named_images
from pneumonia_core.archives.tables.table_files import is_table, table_rows
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy
from pneumonia_core.storage.patience import heed, heeded
from pneumonia_core.storage.ranges import stat_file
from pneumonia_core.system.hash_set import HashSet

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
    """A line of a manifest: the images that it may name, and a JSON object of the carried columns."""

    images: Sequence[NamedImage]
    carried: str | None

    @property
    def readable(self) -> list[NamedImage]:
        return [image for image in self.images if image.read_from is not None]

    @property
    def image(self) -> NamedImage:
        """The likeliest that may be read, else the one that is refused."""
        return (self.readable or self.images)[0]


def is_manifest(uri: str) -> bool:
    """Whether an archive is a manifest, by its name."""
    return is_table(uri)


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
    rows = list(itertools.islice(table_rows(uri, ("uri", *rules.carry)), _FIRST_ROWS))
    images = [line.image for line in _lines(rows, uri, rules, Counter())]
    if images and all(image.read_from is None for image in images):
        named = ", ".join(repr(image.uri) for image in images[:3])
        if all(image.refused is OTHER_FORM for image in images):
            raise InvalidInput(
                f"{uri!r} names images by other schemes or forms than are read: {named}. Write them as "
                "s3://BUCKET/KEY, gs://BUCKET/KEY, abfs://CONTAINER/PATH or file:///PATH.",
                Remedy.ALLOW_PREFIX,
            )
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
            images = (pool.map if any(map(_is_remote, fresh)) else map)(listed, fresh)
            for image, line in zip(images, fresh, strict=True):
                if image.uri == line.image.uri or seen.add(image.uri):
                    yield image
                else:
                    skipped[SkipReason.REPEATED_IN_MANIFEST] += 1


def _lines_after(
    uri: str, rules: ListingRules, skipped: Counter[SkipReason], after: str | None
) -> tuple[Iterator[_Line], HashSet]:
    """The lines that follow the image `after`, and the images named before; all where it is not named."""
    seen = HashSet()
    passed = _lines(table_rows(uri, ("uri", *rules.carry)), uri, rules, Counter())
    for line in passed if after is not None else ():
        seen.add(line.image.uri)
        if after in [image.uri for image in line.images]:
            seen.add(after)
            return passed, seen
    return _lines(table_rows(uri, ("uri", *rules.carry)), uri, rules, skipped), HashSet()


def _is_remote(line: _Line) -> bool:
    return line.image.read_from is not None and not line.image.read_from.startswith("file://")


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
        yield _Line(named_images(text, folder, allowed), carried)


def _listed(members: NamedMembers, line: _Line) -> ListedImage:
    if not line.readable:
        return ListedImage(line.image.uri, _NOT_ALLOWED_VERSION, 0, line.image.refused, line.carried)
    for image in line.readable:
        found = _look_up(members, image)
        if found is not None:
            return replace(found, uri=image.uri, carried=line.carried)
    absent = _whole_file(str(line.image.read_from))
    return ListedImage(line.image.uri, ABSENT_VERSION, 0, absent, line.carried)


def _look_up(members: NamedMembers, image: NamedImage) -> ListedImage | None:
    """The image as listed, None where it is not there. Raises PneumoniaError where that cannot be known."""
    try:
        return _find(members, str(image.read_from))
    except RejectedImage as rejected:
        if rejected.reason in ("not_found", "forbidden"):
            return None
        # It may be there, unchanged: under another version it would be scored again, or rejected.
        raise PneumoniaError(
            f"{image.uri!r}, which the manifest names, cannot be looked up: {rejected.detail}.",
            Remedy.WHEN_STORAGE_ANSWERS,
        ) from rejected


def _find(members: NamedMembers, uri: str) -> ListedImage | None:
    """A file, or a member of a tar or zip; None for a member that is not there. Raises RejectedImage."""
    member = split_member_uri(uri)
    if member is not None:
        return members.find(*member)
    stored = stat_file(uri)
    return ListedImage(uri, stored.version, stored.size_bytes, _whole_file(uri))


def _whole_file(uri: str) -> UnlinkedFile | WholeFile:
    return UnlinkedFile(uri) if uri.startswith("file://") else WholeFile()
