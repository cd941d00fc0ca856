"""The columns of the results table, as its log and as its files have them."""

from typing import Final

import pyarrow as pa
from deltalake import Field, Schema
from deltalake.schema import PrimitiveType

PARTITION: Final = "run_date"
# name, Delta type, nullable, comment
_COLUMNS: Final = (
    (
        "image_uri",
        "string",
        False,
        "Raw key of the image, not percent-encoded: file:///…, s3://bucket/a.tar!/member.jpg",
    ),
    ("image_version", "string", False, "Changes when the content does: etag, or size and modification time"),
    ("image_sha256", "string", True, "SHA-256 of the bytes read; null if never read"),
    ("size_bytes", "long", True, "Size of the source in bytes; null if unknown"),
    ("source_format", "string", True, "Format of the source, known by its content; null if unknown"),
    ("width", "integer", True, "Stored width of the source in pixels; null if unknown"),
    ("height", "integer", True, "Stored height of the source in pixels; null if unknown"),
    ("archive", "string", False, "The archive argument under which the image was found"),
    ("study_key", "string", True, "HMAC-SHA-256 of the DICOM SOPInstanceUID; null without key or DICOM"),
    ("status", "string", False, "scored or rejected"),
    ("p_normal", "float", True, "Probability of normal; null when rejected"),
    ("p_bacterial", "float", True, "Probability of bacterial pneumonia; null when rejected"),
    ("p_viral", "float", True, "Probability of viral pneumonia; null when rejected"),
    ("p_pneumonia", "float", True, "p_bacterial + p_viral; null when rejected"),
    (
        "finding",
        "string",
        True,
        "normal, bacterial or viral at the thresholds of the bundle; null when rejected",
    ),
    (
        "domain_score",
        "float",
        True,
        "How unlike the training data the image is; null when rejected or not in the bundle",
    ),
    (
        "in_domain",
        "boolean",
        True,
        "Whether the image is like the training data; null when rejected or not in the bundle",
    ),
    ("reject_stage", "string", True, "read, decode or score; null when scored"),
    ("reject_reason", "string", True, "Why the image has no score, from a closed list; null when scored"),
    ("reject_detail", "string", True, "The reason with its numbers; null when scored"),
    ("attempt", "short", False, "1, or more for an image tried again after a rejection that may pass"),
    ("engine", "string", False, "The engine that computed the probabilities"),
    ("model_id", "string", False, "The model that computed the probabilities"),
    ("run_id", "string", False, "The run that wrote the row"),
    ("scored_at", "timestamp", False, "When the image was scored or rejected, UTC"),
    (PARTITION, "date", False, "Logical date of the run, the same for all its rows"),
    (
        "precision",
        "string",
        True,
        "What the engine computed in: float32, bfloat16, float16 or int8; null in rows of version 0.1.0",
    ),
    (
        "findings_set",
        "string",
        True,
        "Findings that cannot be ruled out at the coverage of the bundle, such as bacterial,viral; null when "
        "rejected or not in the bundle",
    ),
)
# Columns that a later version added, all nullable. Tables and parts of earlier versions lack them.
ADDED_COLUMNS: Final = ("precision", "findings_set")
SCHEMA: Final = Schema(
    [
        Field(name, PrimitiveType(kind), nullable=nullable, metadata={"comment": comment})
        for name, kind, nullable, comment in _COLUMNS
    ]
)
_ARROW_TYPES: Final = {
    "string": pa.string(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "short": pa.int16(),
    "float": pa.float32(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
# The columns of a data file: only the log has the partition column.
FILE_SCHEMA: Final = pa.schema(
    [
        pa.field(name, _ARROW_TYPES[kind], nullable)
        for name, kind, nullable, _ in _COLUMNS
        if name != PARTITION
    ]
)
