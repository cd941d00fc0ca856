"""Tables and records that may pack images in their columns, as Hugging Face and TensorFlow write them."""

import io
from typing import IO, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.range_reader import RangeReader
from pneumonia_core.storage.ranges import read_range

# Before images that are stored one after another come some bytes that say how long each is.
_WITHIN: Final = (b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", b"\xff\xd8\xff\xdb", b"\x89PNG\r\n\x1a\n")
_LMDB: Final = b"\xde\xc0\xef\xbe"
# A footer describes columns and row groups, some hundred bytes each.
_MAX_FOOTER_BYTES: Final = 64 * 2**20
_PIECE: Final = 2**16


def holds_image_within(head: bytes) -> bool:
    """Whether an image begins soon after the first bytes of a file that is of another kind."""
    return any(head.find(magic, 1) > 0 for magic in _WITHIN) or head[16:20] == _LMDB


def has_binary_column(stored: StoredFile, head: bytes) -> bool:
    """Whether a file that begins so is a Parquet or Arrow table with a column of bytes.

    A table that cannot be read may have one.
    """
    if not head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        return False
    reader = RangeReader(stored.size_bytes, lambda at, count: read_range(stored.uri, at, count))
    try:
        return any(_holds_bytes(field.type) for field in _schema(stored, head, reader))
    except (pa.ArrowException, OSError, RejectedImage):
        return True


def _schema(stored: StoredFile, head: bytes, reader: RangeReader) -> pa.Schema:
    file = pa.PythonFile(cast(IO[bytes], io.BufferedReader(reader, _PIECE)), "r")
    if head.startswith(b"PAR1"):
        footer = read_range(stored.uri, max(stored.size_bytes - 8, 0), 4)
        if int.from_bytes(footer, "little") > _MAX_FOOTER_BYTES:
            raise OSError("a footer of this size")
        return pq.read_schema(file)
    if head.startswith(b"ARROW1"):
        return pa.ipc.open_file(file).schema
    return pa.ipc.open_stream(file).schema


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
    is_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in is_bytes)
