"""The facts of all images of a listing, gathered on Ray Data."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.console.output import Progress
from jobs.ray_runtime.resources import cluster_cpus
from pneumonia_core.archives.entries import SOURCE_FIELDS, FetchedImage, image_refs
from pneumonia_core.datasets.image_facts import IMAGE_FACTS, IMAGE_SIZE, ImageFacts, facts_of_image
from pneumonia_core.scoring.decoding import decode_ahead, exit_if_stuck
from pneumonia_core.scoring.isolation import TIME_LIMIT_S
from pneumonia_core.scoring.prefetch import READERS_PER_CORE
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow

BLOCK_IMAGES: Final = 128
_LISTED: Final = ["image_uri", "archive", "carried"]
_WANTED: Final = [
    "position",
    "image_version",
    "size_bytes",
    *_LISTED,
    *(field.name for field in SOURCE_FIELDS),
]


def survey_listing(segments: Sequence[Path], total: int) -> pa.Table:
    """The facts of all images in a listing's segments, in the listing's order.

    The columns are `image_uri`, `archive` and `carried`, then those of IMAGE_FACTS.
    """
    surveyed = []
    with Progress(total, "images", "reading") as progress:
        # One segment after the other, so that Ray Data's memory in this process does not grow with the
        # listing.
        for segment in segments:
            surveyed.append(_survey(pq.read_table(segment, columns=_WANTED), progress))
    return pa.concat_tables(surveyed)


def _survey(rows: pa.Table, progress: Progress) -> pa.Table:
    # Ray reads the environment that `ray_session` sets when it is imported.
    import ray.data

    from jobs.ray_runtime.data_context import data_context

    blocks = [rows.slice(start, BLOCK_IMAGES) for start in range(0, rows.num_rows, BLOCK_IMAGES)]
    surveyor: Any = Surveyor
    # Actors keep the child process that decodes. The pool grows to as many as there are CPUs.
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=min(cluster_cpus(), len(blocks)))
    with data_context():
        data: Any = ray.data.from_arrow(blocks).map_batches(
            surveyor, compute=pool, num_cpus=1, batch_size=None, batch_format="pyarrow"
        )
    surveyed = []
    for block in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        surveyed.append(block)
        progress.advance(block.num_rows)
    return pa.concat_tables(surveyed).sort_by("position").drop_columns(["position"]).combine_chunks()


class Surveyor:
    """Gathers the facts of listed images in one child process, and reads those of a bucket ahead in threads.

    An image that kills or hangs its decoder costs one row, not the survey.
    """

    def __init__(self) -> None:
        self._children = ChildPool(facts_of_image, TIME_LIMIT_S)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(READERS_PER_CORE, thread_name_prefix="read")

    def __call__(self, rows: pa.Table) -> pa.Table:
        """`position`, `image_uri`, `archive` and `carried` of the listed `rows`, with IMAGE_FACTS."""
        images = decode_ahead(
            image_refs(rows), IMAGE_SIZE, self._pool, self._readers, READERS_PER_CORE, self._facts
        )
        facts = [asdict(each) for each in exit_if_stuck(images)]
        table = rows.select(["position", *_LISTED])
        for column, field in zip(
            pa.Table.from_pylist(facts, schema=IMAGE_FACTS).columns, IMAGE_FACTS, strict=True
        ):
            table = table.append_column(field, column)
        return table

    def _facts(self, image: FetchedImage, image_size: int) -> ImageFacts:
        answer = self._children.ask(image)
        if isinstance(answer, Crashed | TooSlow):
            reason = "crashed_decoder" if isinstance(answer, Crashed) else "too_slow"
            return ImageFacts(size_bytes=image.ref.size_bytes or None, reason=reason)
        return answer
