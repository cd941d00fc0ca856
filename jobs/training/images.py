"""Labelled images, decoded by Ray Data into the object store for training."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from jobs.console.output import say
from pneumonia_core.archives.entries import SOURCE_FIELDS, ImageRef, TarEntry, image_refs, source_values
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import LABELS
from pneumonia_core.imaging.contract import Decoded
from pneumonia_core.runs.crash_journal import CrashJournal
from pneumonia_core.scoring.isolation import decode_all
from pneumonia_core.storage.files import delete_folder
from pneumonia_core.storage.location import Location
from pneumonia_core.training.held_out.images import ImageParts

if TYPE_CHECKING:
    import pandas as pd
    import ray.data

BLOCK_IMAGES: Final = 64
MAX_REJECTED_SHARE: Final = 0.1
_OUTCOME_COLUMNS: Final = ["row", "label", "patient", "sha256", "reason", "in_validation", "left_out"]


@dataclass(frozen=True)
class StoredBlock:
    """The images of one block of a Ray data set, in the object store or, where that is full, spilled to disk.

    `count` is their number, `first_row` the `row` of the first.
    """

    block: "ray.ObjectRef[pa.Table]"
    count: int
    first_row: int

    def __len__(self) -> int:
        return self.count

    def load(self) -> np.ndarray:
        """The images uint8 [N, H, W], shared with the object store for as long as somebody has them."""
        # Ray reads the environment that `ray_session` sets when it is imported.
        import ray
        from ray.data.block import BlockAccessor

        rows = BlockAccessor.for_block(ray.get(self.block)).to_numpy(["row", "image"])
        # Scores of other images would be taken for theirs.
        assert rows["row"][0] == self.first_row, "the blocks of a data set changed their order"
        images: np.ndarray = rows["image"]
        return images


@dataclass(frozen=True)
class LabelledImages:
    """A materialised Ray data set with the columns `image` uint8 [H, W], `label` and `row`.

    `images`, `labels` int64 [N] and `patients` [N] are in the order of `row`. `contents` are the SHA-256 of
    the files. `digest` is one over these with label and patient, and depends neither on order nor on file
    names.
    """

    dataset: "ray.data.Dataset"
    images: ImageParts
    labels: np.ndarray
    patients: np.ndarray
    contents: frozenset[str]
    digest: str


def decode_labelled(
    images: Sequence[LabelledImage],
    size: int,
    cpus: float,
    name: str,
    journals: Location,
    in_validation: frozenset[str] = frozenset(),
) -> LabelledImages:
    """Decode `images` to uint8 [size, size] in Ray tasks of `cpus` CPUs each.

    Images that cannot be read are left out with a message. So are those whose SHA-256 is `in_validation`:
    validation images must not be trained on, whatever the name of their copy. A worker that dies leaves a
    journal in the folder `journals`; its images are then decoded in child processes, so that the one that
    killed it is left out alone.

    `name` is that of the set, for messages. Raises InvalidInput where more than a tenth cannot be read, or
    nothing of a class is left.
    """
    # Ray reads the environment that `ray_session` sets when it is imported.
    import ray.data

    from jobs.ray_runtime.data_context import data_context

    decode: Any = _decode_block
    with data_context():
        rows = ray.data.from_arrow(_blocks(images)).map_batches(
            decode,
            fn_kwargs={
                "size": size,
                "threads": max(1, round(cpus)),
                "name": name,
                "journals": journals,
                "in_validation": in_validation,
            },
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=cpus,
        )
    # Without it, blocks are in the order in which tasks finish, and a seed would not repeat a training.
    rows.context.execution_options.preserve_order = True
    decoded = rows.materialize()
    delete_folder(journals)
    outcomes = decoded.select_columns(_OUTCOME_COLUMNS).to_pandas().sort_values("row")
    left_out = outcomes["left_out"].to_numpy(bool)
    if left_out.any():
        report_left_out(outcomes["label"], outcomes["reason"], outcomes["in_validation"], name)
        decoded = decoded.filter(expr="left_out == 0", num_cpus=cpus).materialize()
        outcomes = outcomes[~left_out]
    return LabelledImages(
        decoded,
        stored_images(decoded, outcomes["row"].to_numpy(), size),
        outcomes["label"].to_numpy(np.int64),
        outcomes["patient"].to_numpy(str),
        frozenset(outcomes["sha256"]),
        _digest(outcomes),
    )


def stored_images(decoded: "ray.data.Dataset", rows: np.ndarray, size: int) -> ImageParts:
    """The images of `size` px of a materialised data set, whose column `row` is int64 [N]; none is loaded."""
    blocks: list[StoredBlock] = []
    start = 0
    for bundle in decoded.iter_internal_ref_bundles():
        for block, metadata in zip(bundle.block_refs, bundle.metadata, strict=True):
            if metadata.num_rows:
                blocks.append(StoredBlock(block, metadata.num_rows, int(rows[start])))
                start += metadata.num_rows
    return ImageParts(tuple(blocks), size)


def _blocks(images: Sequence[LabelledImage]) -> list[pa.Table]:
    """Tables of BLOCK_IMAGES rows, from which `image_refs` makes the references again."""
    sources = zip(*(source_values(image.ref.source) for image in images), strict=True)
    table = pa.table(
        {
            "row": pa.array(range(len(images)), pa.int64()),
            "label": pa.array([image.label for image in images], pa.int32()),
            "patient": [image.patient_id for image in images],
            "image_uri": [image.ref.uri for image in images],
            "image_version": pa.array([image.version for image in images], pa.string()),
            "size_bytes": pa.array([image.ref.size_bytes for image in images], pa.int64()),
            **{
                field.name: pa.array(values, field.type)
                for field, values in zip(SOURCE_FIELDS, sources, strict=True)
            },
        }
    )
    return [table.slice(start, BLOCK_IMAGES) for start in range(0, len(images), BLOCK_IMAGES)]


def _decode_block(
    rows: pa.Table, size: int, threads: int, name: str, journals: Location, in_validation: frozenset[str]
) -> dict[str, np.ndarray]:
    # Ray reads the environment that `ray_session` sets when it is imported.
    import ray

    block = rows["row"][0].as_py() // BLOCK_IMAGES
    with CrashJournal(journals, name, block, ray.get_runtime_context().get_node_id()) as journal:
        images = _decode_in_tar_order(image_refs(rows), size, threads, journal.is_retry)
        journal.finish()
    pixels = np.zeros((len(images), size, size), np.uint8)
    for number, image in enumerate(images):
        if image.pixels is not None:
            pixels[number] = image.pixels
    contents = ["" if image.rejection else image.source.sha256 for image in images]
    reasons = [image.rejection.reason if image.rejection else "" for image in images]
    copies = np.array([content in in_validation for content in contents])
    return {
        **{column: rows[column].to_numpy() for column in ("row", "label", "patient")},
        "image": pixels,
        "sha256": np.array(contents, dtype=object),
        "reason": np.array(reasons, dtype=object),
        "in_validation": copies,
        "left_out": np.array(
            [copy or reason != "" for copy, reason in zip(copies, reasons, strict=True)], np.int8
        ),
    }


def _decode_in_tar_order(refs: Sequence[ImageRef], size: int, threads: int, isolated: bool) -> list[Decoded]:
    """The images in the order of `refs`, read in the order of their tars.

    A compressed tar is read from its beginning again for each member that is before the last one.
    """
    order = sorted(range(len(refs)), key=lambda number: _place_in_tar(refs[number]))
    decoded = decode_all([refs[number] for number in order], size, threads, isolated)
    by_number = dict(zip(order, decoded, strict=True))
    return [by_number[number] for number in range(len(refs))]


def _place_in_tar(ref: ImageRef) -> tuple[str, int]:
    return (ref.source.file, ref.source.offset) if isinstance(ref.source, TarEntry) else ("", 0)


def report_left_out(
    labels: Sequence[int], reasons: Sequence[str], in_validation: Sequence[bool], name: str
) -> None:
    """Say how many images are left out and why: their reject reason, "" for none, or a copy `in_validation`.

    Raises InvalidInput where more than a tenth cannot be read, or nothing of a class is left.
    """
    rejected = Counter(reason for reason in reasons if reason)
    if rejected:
        _report_rejected(rejected, len(reasons), name)
    if copies := sum(in_validation):
        say(
            f"left out {copies} of {len(labels)} {name} images whose content is in validation as well, under "
            "another name: `pneumonia inspect` names equal files"
        )
    used = {
        label
        for label, reason, copy in zip(labels, reasons, in_validation, strict=True)
        if not reason and not copy
    }
    if gone := sorted(set(labels) - used):
        raise InvalidInput(
            f"No {' and no '.join(LABELS[label] for label in gone)} image is left for {name}. Fix the "
            "unreadable files and remove duplicates (`pneumonia inspect` lists both)."
        )


def _report_rejected(rejected: Counter[str], total: int, name: str) -> None:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
    if rejected.total() > MAX_REJECTED_SHARE * total:
        raise InvalidInput(
            f"{rejected.total()} of {total} {name} images cannot be read ({counts}). Can all workers read "
            "the data set? `pneumonia inspect` names the files."
        )
    say(f"left out {rejected.total()} of {total} {name} images that cannot be read: {counts}")


def _digest(outcomes: "pd.DataFrame") -> str:
    lines = sorted(f"{row.sha256} {row.label} {row.patient}\n" for row in outcomes.itertuples(index=False))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
