"""The images that a network has seen: their hashes in its bundle."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from pneumonia_core.bundles.bundle import Bundle

TRAINING_IMAGES: Final = "training_images.parquet"
_SCHEMA: Final = pa.schema([pa.field("sha256", pa.binary(32)), pa.field("part", pa.string())])


@dataclass(frozen=True)
class TrainingImages:
    """SHA-256 in hex of the files that a network was trained on, and of those that it was validated on."""

    training: frozenset[str]
    validation: frozenset[str]

    def part_of(self, sha256: str | None) -> str | None:
        """`training` or `validation`, whichever a file is of; None for others."""
        if sha256 in self.training:
            return "training"
        return "validation" if sha256 in self.validation else None

    def as_parquet(self) -> bytes:
        """The file TRAINING_IMAGES of a bundle: a row for each hash, in their order."""
        parts = [(self.training, "training"), (self.validation, "validation")]
        rows = sorted((bytes.fromhex(sha256), part) for hashes, part in parts for sha256 in hashes)
        table = pa.table([[sha256 for sha256, _ in rows], [part for _, part in rows]], schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", use_dictionary=["part"])
        return buffer.getvalue()


def read_training_images(bundle: Bundle) -> TrainingImages | None:
    """The images that a bundle's network has seen; None in bundles of version 0.1.0, which do not say."""
    if TRAINING_IMAGES not in bundle.document["files"]:
        return None
    rows = pq.read_table(bundle.path / TRAINING_IMAGES).to_pydict()
    pairs = list(zip(rows["sha256"], rows["part"], strict=True))
    return TrainingImages(*(_hashes_of(pairs, part) for part in ("training", "validation")))


def _hashes_of(pairs: Sequence[tuple[bytes, str]], wanted: str) -> frozenset[str]:
    return frozenset(sha256.hex() for sha256, part in pairs if part == wanted)
