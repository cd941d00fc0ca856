"""Labelled images decoded by Ray Data, in the object store, for training."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from jobs.console.output import say
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import InvalidInput, RejectedImage
from pneumonia_core.findings import CLASSES

BLOCK_IMAGES: Final = 64
MAX_REJECTED_SHARE: Final = 0.1
# Instead of a reason of rejection.
HELD_BACK: Final = "held_back"


@dataclass(frozen=True)
class LabelledImages:
    """A materialised Ray data set with the columns `image` uint8 [H, W], `label` and `row`.

    `labels` int64 [N] and `patients` [N] are in the order of `row`. `contents` are the SHA-256 of the
    files, `digest` is one over them with label and patient, whatever their order and place.
    """

    dataset: Any
    labels: np.ndarray
    patients: np.ndarray
    contents: frozenset[str]
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


def decode_labelled(
    images: Sequence[LabelledImage],
    size: int,
    cpus: float,
    name: str,
    held_back: frozenset[str] = frozenset(),
) -> LabelledImages:
    """Decode `images` in Ray tasks of `cpus` CPUs each; ones that cannot be read are left out and told, and so are files
    whose SHA-256 is in `held_back`: under whatever name, validation must not be trained on.

    Raises InvalidInput when more than a tenth cannot be read, or nothing of a class is left.
    """
    import ray.data

    tables = [_table(images, start) for start in range(0, len(images), BLOCK_IMAGES)]
    decode: Any = _decode_rows
    rows = ray.data.from_arrow(tables).map_batches(
        decode,
        fn_kwargs={"size": size, "held_back": held_back},
        batch_size=None,
        batch_format="numpy",
        num_cpus=cpus,
    )
    # Otherwise the blocks stand in the order in which tasks made them ready, and a seed would not repeat a training.
    rows.context.execution_options.preserve_order = True
    rows = rows.materialize()
    facts = (
        rows.select_columns(["row", "label", "patient", "sha256", "reason"]).to_pandas().sort_values("row")
    )
    left_out = facts["reason"] != ""
    if left_out.any():
        _tell_left_out(facts, name)
        rows = rows.filter(expr="reason == ''", num_cpus=cpus).materialize()
        facts = facts[~left_out]
    return LabelledImages(
        rows,
        facts["label"].to_numpy(np.int64),
        facts["patient"].to_numpy(str),
        frozenset(facts["sha256"]),
        _digest(facts),
    )


def _table(images: Sequence[LabelledImage], start: int) -> pa.Table:
    part = images[start : start + BLOCK_IMAGES]
    return pa.table(
        {
            "row": pa.array(range(start, start + len(part)), pa.int64()),
            "uri": [image.uri for image in part],
            "label": pa.array([image.label for image in part], pa.int32()),
            "patient": [image.patient_id for image in part],
        }
    )


def _decode_rows(rows: dict[str, np.ndarray], size: int, held_back: frozenset[str]) -> dict[str, np.ndarray]:
    images = np.zeros((len(rows["uri"]), size, size), np.uint8)
    digests, reasons = [], []
    for index, uri in enumerate(rows["uri"]):
        digest, reason = _decode_into(images[index], uri, size)
        digests.append(digest)
        reasons.append(HELD_BACK if digest in held_back else reason)
    return {
        "row": rows["row"],
        "image": images,
        "label": rows["label"],
        "patient": rows["patient"],
        "sha256": np.array(digests, dtype=object),
        "reason": np.array(reasons, dtype=object),
    }


def _decode_into(target: np.ndarray, uri: str, size: int) -> tuple[str, str]:
    """Fills `target`; the SHA-256 of the file and, where it could not be decoded, the reason."""
    from pneumonia_core.imaging.decode import decode
    from pneumonia_core.storage.ranges import read_file

    try:
        content = read_file(uri)
        target[:] = decode(content, size)
    except RejectedImage as rejected:
        return "", rejected.reason
    return hashlib.sha256(content).hexdigest(), ""


def _tell_left_out(facts: Any, name: str) -> None:
    held_back = facts["reason"] == HELD_BACK
    rejected = facts["reason"][(facts["reason"] != "") & ~held_back]
    if len(rejected):
        _tell_rejected(rejected, len(facts), name)
    if held_back.any():
        say(
            f"left out {held_back.sum()} of {len(facts)} {name} images whose content is in validation as well, under "
            "another name: `pneumonia inspect` names equal files"
        )
    gone = set(facts["label"]) - set(facts["label"][facts["reason"] == ""])
    if gone:
        raise InvalidInput(
            f"that leaves no {' and no '.join(CLASSES[label] for label in sorted(gone))} image for {name}: mend the files "
            "that cannot be read, and where the data set has the same pictures under several patients, name each once."
        )


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
