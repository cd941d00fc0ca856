"""Labelled images with patient and split, from Kermany folders or labels tables."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pneumonia_core.archives.archive import list_archive, named_file, open_archive
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.archives.manifests import SOURCE_MODE_COLUMN, ListingRules
from pneumonia_core.archives.named_members import NamedMembers, split_member_uri
from pneumonia_core.archives.skipped import SkipReason, describe_skipped, may_hide_images
from pneumonia_core.archives.tables.image_uris import trusted_image_uris
from pneumonia_core.archives.tables.table_files import is_table, table_files, what_is_wrong
from pneumonia_core.datasets.class_folders import read_class_folders, read_class_members
from pneumonia_core.datasets.folder_names import SPLITS
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy
from pneumonia_core.findings import LABELS, NORMAL
from pneumonia_core.storage.errors import BucketError, error_text
from pneumonia_core.storage.files import open_file, write_bytes
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.storage.ranges import stat_file

# What a table says of an image besides its URI.
LABEL_COLUMNS: Final = ("label", "patient_id", "split")
_COLUMNS: Final = ("uri", *LABEL_COLUMNS)
_FORMS: Final = (
    "Give a folder, tar or zip with train/NORMAL and train/PNEUMONIA in it, or a .parquet or .csv table with "
    f"the columns {', '.join(_COLUMNS)}."
)


def read_labelled(data: str) -> list[LabelledImage]:
    """The labelled images of a folder, tar or zip with folders of classes, or of a labels table.

    `data` is a local path or a URI, as of an archive. A folder is one of `class_folders`. A table (Parquet or
    CSV)
    has the columns `uri` (a path, or a URI that may name a member of a tar or zip), `label` (a class, or
    `pneumonia` where the kind is unknown), `patient_id` and `split`; its images come by URI. Raises
    InvalidInput that says what is missing, PneumoniaError where a storage fails.
    """
    location = open_location(data)
    suffix = location.uri.lower()
    if is_table(suffix):
        return _read_labels_table(location)
    try:
        uri = open_archive(data)
    except InvalidInput as error:
        raise InvalidInput(f"{data}: no such data set. {_FORMS}") from error
    return read_class_folders(location) if named_file(location) is None else _read_container(uri)


def read_columns(data: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The values in further `columns` of a labels table, in the order of `read_labelled`, null as None.

    Raises InvalidInput where a column is not there once.
    """
    location = open_location(data)
    folder = location.uri.rpartition("/")[0]
    rows = _read_rows(location, [*_COLUMNS, *(name for name in columns if name not in _COLUMNS)])
    rows.sort(key=lambda row: _image_uri(str(row["uri"]), folder, location))
    return {name: [row[name] for row in rows] for name in columns}


def _read_container(uri: str) -> list[LabelledImage]:
    skipped: Counter[SkipReason] = Counter()
    images = read_class_members(uri, list_archive(uri, skipped))
    if hiding := may_hide_images(skipped):
        raise InvalidInput(
            f"{uri}: some of it cannot be read ({describe_skipped(hiding)}), and images would be missing."
        )
    return images


def _read_labels_table(location: Location) -> list[LabelledImage]:
    folder = location.uri.rpartition("/")[0]
    rows = [_checked(row, location) for row in _read_rows(location)]
    uris = [_image_uri(str(row["uri"]), folder, location) for row in rows]
    _check_named_once(location, uris)
    members = NamedMembers()
    images = [
        LabelledImage(ref, LABELS.index(row["label"]), str(row["patient_id"]), row["split"], version)
        for row, (ref, version) in zip(rows, (_find(uri, members) for uri in uris), strict=True)
    ]
    return sorted(images, key=lambda image: image.uri)


def _read_rows(location: Location, columns: Sequence[str] = _COLUMNS) -> list[dict[str, Any]]:
    """The rows of a labels table, with `columns`. Raises InvalidInput without rows, or without a column."""
    try:
        table, *others = map(_read_part, table_files(location))
        if others:
            table = pa.concat_tables([table, *others], promote_options="permissive")
        # They are decoded here, and may not be UTF-8.
        found = table.column_names
    except FileNotFoundError as error:
        raise InvalidInput(f"{location.uri}: no such data set. {_FORMS}") from error
    except BucketError as error:
        raise PneumoniaError(
            f"{location.uri}: the labels table cannot be read ({error_text(error)}).", Remedy.RUN_AGAIN
        ) from error
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InvalidInput(
            f"{location.uri}: the labels table cannot be read. Check that it is a whole table, in UTF-8 and "
            f"with commas.{what_is_wrong(location)}"
        ) from error
    for name in columns:
        if found.count(name) != 1:
            problem = "is missing from" if name not in found else "is more than once in"
            raise InvalidInput(
                f"{location.uri}: the column {name} {problem} the labels table. It needs "
                f"{', '.join(columns)}, each once.{what_is_wrong(location)}"
            )
    if not table.num_rows:
        raise InvalidInput(f"{location.uri}: the labels table has no rows.")
    rows: list[dict[str, Any]] = table.select(list(columns)).to_pylist()
    return rows


def _read_part(part: Location) -> pa.Table:
    with open_file(part) as file:
        return pq.read_table(file) if part.uri.lower().endswith(".parquet") else _read_csv(file)


def _read_csv(file: pa.NativeFile) -> pa.Table:
    # As text: patient 007 is not patient 7, and numbers of twenty digits would be rounded to the same one.
    texts = dict.fromkeys(_COLUMNS, pa.string())
    options = pa.csv.ConvertOptions(column_types=texts, strings_can_be_null=True)
    return pa.csv.read_csv(file, convert_options=options)


def _checked(row: dict[str, Any], table: Location) -> dict[str, Any]:
    """The row of a labels table. Raises InvalidInput unless its values are complete and known."""
    if row["label"] not in LABELS or row["split"] not in SPLITS:
        raise InvalidInput(
            f"{table.uri}: label {row['label']!r} with split {row['split']!r}: labels are "
            f"{', '.join(LABELS)}, splits are {', '.join(SPLITS)}."
        )
    if row["patient_id"] in (None, "") or row["uri"] in (None, ""):
        raise InvalidInput(
            f"{table.uri}: a row of the labels table has no uri or no patient_id. Each needs both: images of "
            "one patient must not be both trained on and measured by."
        )
    return row


def _image_uri(text: str, folder: str, table: Location) -> str:
    try:
        uris = trusted_image_uris(text, folder)
    except InvalidInput as error:
        raise InvalidInput(f"{table.uri}: {error.text}") from error
    return next(filter(_is_there, uris), uris[0]) if len(uris) > 1 else uris[0]


def _is_there(uri: str) -> bool:
    """Whether there is a file of this URI, or the tar or zip that it is in."""
    member = split_member_uri(uri)
    try:
        stat_file(uri if member is None else member[0])
    except RejectedImage as rejected:
        return rejected.reason != "not_found"
    return True


def _check_named_once(table: Location, uris: list[str]) -> None:
    # As scoring does, which knows an image by its URI.
    repeated = [uri for uri, rows in Counter(uris).items() if rows > 1]
    if repeated:
        more = f" (and {len(repeated) - 1} more files)" if len(repeated) > 1 else ""
        raise InvalidInput(
            f"{table.uri}: {repeated[0]!r} is named by more than one row{more}: a file under two "
            "patients would be both trained on and measured by. Leave one row for each file."
        )


def _find(uri: str, members: NamedMembers) -> tuple[ImageRef, str | None]:
    """The image of a labels table, and its version where it is a member of a tar or zip.

    A member that is not there is read as a file of that name, and rejected as `not_found`.
    """
    named = split_member_uri(uri)
    if named is None:
        return ImageRef(uri), None
    try:
        found = members.find(*named)
    except RejectedImage:
        found = None
    if found is None:
        return ImageRef(uri), None
    return ImageRef(uri, found.source, found.size_bytes), found.version


def images_of_split(data: str, split: str) -> list[LabelledImage]:
    """The images of a split of a labelled set; `validation` is the part that `split_training` cuts off.

    Raises InvalidInput where there are none, or none of normal lungs, or none of pneumonia.
    """
    images = read_labelled(data)
    if split == "validation":
        return split_training(images)[1]
    chosen = [image for image in images if image.split == split]
    if not chosen:
        present = ", ".join(sorted({image.split for image in images}))
        raise InvalidInput(f"{data} has no {split} images; it has {present}.", Remedy.OTHER_SPLIT)
    if (labels := {image.label for image in chosen}) == {NORMAL} or NORMAL not in labels:
        only, absent = ("normal", "pneumonia") if NORMAL in labels else ("pneumonia", "normal")
        raise InvalidInput(
            f"the {split} images of {data} are all {only}: without {absent} images nothing can be measured.",
            Remedy.OTHER_SPLIT,
        )
    return chosen


def write_manifest(
    images: Sequence[LabelledImage], location: Location, filled: Sequence[str] = (SOURCE_MODE_COLUMN,)
) -> ListingRules:
    """Write a manifest that names the images, and give the rules under which it may be listed.

    The rules allow every storage that the images are in: whoever gives a labelled set may read it. They also
    have scoring fill the columns `filled`, of manifests.SOURCE_COLUMNS.
    """
    buffer = io.BytesIO()
    names = [image.uri for image in images]
    table = pa.table({"uri": names, **{column: pa.nulls(len(names), pa.string()) for column in filled}})
    pq.write_table(table, buffer)
    write_bytes(location, buffer.getvalue())
    buckets = {"/".join(image.uri.split("/")[:3]) for image in images if not image.uri.startswith("file://")}
    return ListingRules(carry=tuple(filled), allow_prefixes=("/", *sorted(buckets)))
