"""Labelled images decoded by Ray Data, in the object store, for training."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.progress import say
from pneumonia_core.errors import InvalidInput, RejectedImage
from pneumonia_core.labels import LabelledImage

BLOCK_IMAGES: Final = 64
MAX_REJECTED_SHARE: Final = 0.1


@dataclass(frozen=True)
class Decoded:
    """A materialised Ray data set with the columns `image` uint8 [H, W], `label` and `row`.

    `labels` int64 [N] and `patients` [N] are in the order of `row`. `digest` is a SHA-256 over the contents
    of the files with label and patient, whatever their order and place.
    """

    dataset: Any
    labels: np.ndarray
    patients: np.ndarray
    digest: str

    def images(self, limit: int | None = None) -> np.ndarray:
        """The images uint8 [N, H, W] in the order of `labels`, or some `limit` of them, in this process."""
        rows = self.dataset if limit is None else self.dataset.limit(limit)
        batches = [
            (batch["row"], batch["image"])
            for batch in rows.iter_batches(batch_size=BLOCK_IMAGES, batch_format="numpy")
        ]
        order = np.argsort(np.concatenate([numbers for numbers, _ in batches]))
        return np.concatenate([images for _, images in batches])[order]


def decode_labelled(images: Sequence[LabelledImage], size: int, cpus: float, name: str) -> Decoded:
    """Decode `images` in Ray tasks of `cpus` CPUs each; ones that cannot be read are left out and told.

    Raises InvalidInput when more than a tenth cannot be read.
    """
    import ray.data

    tables = [_table(images, start) for start in range(0, len(images), BLOCK_IMAGES)]
    decode: Any = _decode_rows
    rows = ray.data.from_arrow(tables).map_batches(
        decode, fn_kwargs={"size": size}, batch_size=None, batch_format="numpy", num_cpus=cpus
    )
    # Otherwise the blocks stand in the order in which tasks made them ready, and a seed would not repeat a training.
    rows.context.execution_options.preserve_order = True
    rows = rows.materialize()
    facts = (
        rows.select_columns(["row", "label", "patient", "sha256", "reason"]).to_pandas().sort_values("row")
    )
    rejected = facts["reason"] != ""
    if rejected.any():
        _tell_rejected(facts["reason"][rejected], len(facts), name)
        rows = rows.filter(expr="reason == ''", num_cpus=cpus).materialize()
        facts = facts[~rejected]
    return Decoded(
        rows,
        facts["label"].to_numpy(np.int64),
        facts["patient"].to_numpy(str),
        _digest(facts),
    )


def _table(images: Sequence[LabelledImage], start: int) -> pa.Table:
    part = images[start : start + BLOCK_IMAGES]
    return pa.table(
        {
            "row": pa.array(range(start, start + len(part)), pa.int64()),
            "path": [image.path for image in part],
            "label": pa.array([image.label for image in part], pa.int32()),
            "patient": [image.patient_id for image in part],
        }
    )


def _decode_rows(rows: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    images = np.zeros((len(rows["path"]), size, size), np.uint8)
    digests, reasons = [], []
    for index, path in enumerate(rows["path"]):
        digest, reason = _decode_into(images[index], path, size)
        digests.append(digest)
        reasons.append(reason)
    return {
        "row": rows["row"],
        "image": images,
        "label": rows["label"],
        "patient": rows["patient"],
        "sha256": np.array(digests, dtype=object),
        "reason": np.array(reasons, dtype=object),
    }


def _decode_into(target: np.ndarray, path: str, size: int) -> tuple[str, str]:
    """Fills `target`; the SHA-256 of the file and, where it could not be decoded, the reason."""
    from pneumonia_core.images import decode

    try:
        content = Path(path).read_bytes()
    except OSError:
        return "", "not_found"
    try:
        target[:] = decode(content, size)
    except RejectedImage as rejected:
        return "", rejected.reason
    return hashlib.sha256(content).hexdigest(), ""


def _tell_rejected(reasons: Any, total: int, name: str) -> None:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(reasons).items()))
    if len(reasons) > MAX_REJECTED_SHARE * total:
        raise InvalidInput(
            f"{len(reasons)} of {total} {name} images cannot be read ({counts}). Do all workers see the "
            "folder? `pneumonia inspect` names the files."
        )
    say(f"left out {len(reasons)} of {total} {name} images that cannot be read: {counts}")


def _digest(facts: Any) -> str:
    lines = sorted(f"{row.sha256} {row.label} {row.patient}\n" for row in facts.itertuples(index=False))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
