"""Where an image's bytes are, written to an inventory and read back, also from one that an unfinished run
left."""

import pyarrow as pa
import pytest

from pneumonia_core.archives.entries import (
    CUT_SHORT,
    ENCRYPTED,
    NOT_ALLOWED,
    SOURCE_FIELDS,
    UNKNOWN_METHOD,
    TarEntry,
    UnlinkedFile,
    WholeFile,
    ZipEntry,
    image_refs,
    source_values,
)
from pneumonia_core.errors import PneumoniaError

SOURCES = [
    WholeFile(),
    UnlinkedFile("file:///real/x.jpeg"),
    TarEntry("file:///a.tar", "9-1", 512, 30),
    TarEntry("file:///a.tar.gz", "9-1", 512, 30, "gz"),
    TarEntry("file:///a.tar.zst", "9-1", 512, 30, "zst"),
    ZipEntry("file:///a.zip", 40, 20, 30, 2**32 - 1, is_deflated=True),
    ZipEntry("file:///a.zip", 40, 30, 30, 7, is_deflated=False),
    ENCRYPTED,
    UNKNOWN_METHOD,
    CUT_SHORT,
    NOT_ALLOWED,
]
# Rows of an inventory as the first version of this program wrote them: these must stay readable.
EARLIER_ROWS = [
    (None, None, None, None, None, None),
    ("file:///real/x.jpeg", "real path", 0, 0, 0, None),
    ("file:///a.tar", "tar", 512, 30, 30, None),
    ("file:///a.tar.gz", "tar.gz", 512, 30, 30, None),
    ("file:///a.tar.zst", "tar.zst", 512, 30, 30, None),
    ("file:///a.zip", "zip.deflated", 40, 20, 30, 2**32 - 1),
    ("file:///a.zip", "zip.stored", 40, 30, 30, 7),
    ("file:///a.zip", "encrypted", 40, 20, 30, 7),
    ("file:///a.zip", "unknown method", 40, 20, 30, 7),
    ("file:///a.zip", "cut short", 40, 20, 30, 7),
    ("file:///x", "forbidden", 0, 0, 0, None),
]


def inventory(values: list[tuple[str | int | None, ...]]) -> pa.Table:
    """Rows of an inventory with these columns of where the bytes are."""
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*values, strict=True), SOURCE_FIELDS, strict=True)
    ]
    table = pa.table(columns, schema=pa.schema(SOURCE_FIELDS))
    images = {"image_uri": "file:///x", "image_version": "9-1+512", "size_bytes": 30}
    for name, value in images.items():
        table = table.append_column(name, pa.array([value] * len(values)))
    return table


def test_what_is_written_is_read_back():
    refs = image_refs(inventory([source_values(source) for source in SOURCES]))
    assert [ref.source for ref in refs] == SOURCES
    assert {(ref.uri, ref.size_bytes) for ref in refs} == {("file:///x", 30)}


def test_inventory_of_an_earlier_version_is_read():
    assert [ref.source for ref in image_refs(inventory(EARLIER_ROWS))] == SOURCES


def test_way_to_store_bytes_that_only_a_later_version_knows_fails_the_run():
    with pytest.raises(PneumoniaError, match="another version"):
        image_refs(inventory([("file:///a.7z", "7z", 0, 1, 1, None)]))
