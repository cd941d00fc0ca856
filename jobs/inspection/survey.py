"""Listed images read by Ray Data for what can be said of them without a model."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.console.output import Progress
from pneumonia_core.archives.entries import SOURCE_FIELDS, FetchedImage, ImageRef, image_refs
from pneumonia_core.errors import RejectedImage
from pneumonia_core.scoring.prefetch import MAX_BYTES_AHEAD, STUCK_AFTER_S, bytes_held, ordered
from pneumonia_core.system.child_process import ChildPool, Crashed, TooSlow

BLOCK_IMAGES: Final = 128
# Reading from a bucket waits more than it computes.
READERS: Final = 8
_LISTED: Final = ["image_uri", "archive", "carried"]


def survey_listing(segments: Sequence[Path], total: int) -> pa.Table:
    """The facts of survey.FACTS_SCHEMA of all images in a listing's segments, with their `image_uri`, `archive`
    and `carried`, in the listing's order."""
    surveyed = []
    with Progress(total, "images", "reading") as progress:
        # One segment after the other: what Ray Data holds in this process does not grow with the listing.
        for segment in segments:
            listed = pq.read_table(segment)
            surveyed.append(_survey(listed, progress))
    return pa.concat_tables(surveyed)


def _survey(listed: pa.Table, progress: Progress) -> pa.Table:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    from jobs.ray_runtime.resources import cluster_cpus

    context = DataContext.get_current()
    context.target_max_block_size = 2**31
    wanted = ["position", "image_version", "size_bytes", *_LISTED, *(field.name for field in SOURCE_FIELDS)]
    rows = listed.select(wanted)
    blocks = [rows.slice(start, BLOCK_IMAGES) for start in range(0, rows.num_rows, BLOCK_IMAGES)]
    surveyor: Any = Surveyor
    # Actors keep the child process that decodes; the pool grows to as many as there are CPUs.
    pool = ActorPoolStrategy(min_size=1, max_size=min(cluster_cpus(), len(blocks)))
    data: Any = ray.data.from_arrow(blocks).map_batches(
        surveyor, compute=pool, num_cpus=1, batch_size=None, batch_format="pyarrow"
    )
    surveyed = []
    for block in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        surveyed.append(block)
        progress.advance(block.num_rows)
    return pa.concat_tables(surveyed).sort_by("position").drop_columns(["position"]).combine_chunks()


class Surveyor:
    """Reads images ahead in threads, and has a child process look at them: one that kills or hangs its decoder
    costs one row, not the job."""

    def __init__(self) -> None:
        # Imported where images are decoded, not in the command's process.
        from pneumonia_core.datasets.image_facts import TIME_LIMIT_S

        self._children: ChildPool[dict[str, Any]] = ChildPool(
            "pneumonia_core.datasets.image_facts", TIME_LIMIT_S
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")

    def __call__(self, rows: pa.Table) -> pa.Table:
        from pneumonia_core.datasets.image_facts import IMAGE_FACTS_SCHEMA

        facts = [self._facts(data) for data in self._read(image_refs(rows))]
        columns = pa.Table.from_pylist(facts, schema=IMAGE_FACTS_SCHEMA)
        table = rows.select(["position", *_LISTED])
        for name in IMAGE_FACTS_SCHEMA.names:
            table = table.append_column(IMAGE_FACTS_SCHEMA.field(name), columns[name])
        return table

    def _read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | str]:
        """The bytes of each image, or the reason why they cannot be read, in order."""
        from pneumonia_core.archives.containers.compressed_tar import with_streamed_members

        def start(image: FetchedImage) -> Future[bytes | str] | bytes | str:
            return self._readers.submit(_bytes_or_reason, image)

        return ordered(
            with_streamed_members(refs), start, READERS, bytes_held, MAX_BYTES_AHEAD, STUCK_AFTER_S
        )

    def _facts(self, data: bytes | str) -> dict[str, Any]:
        if isinstance(data, str):
            return {"reason": data}
        answer = self._children.ask(data)
        if isinstance(answer, TooSlow):
            return {"size_bytes": len(data), "reason": "too_slow"}
        if isinstance(answer, Crashed):
            return {"size_bytes": len(data), "reason": "crashed_decoder"}
        return answer


def _bytes_or_reason(image: FetchedImage) -> bytes | str:
    from pneumonia_core.archives.archive import fetched_bytes

    try:
        return fetched_bytes(image)
    except RejectedImage as rejected:
        return rejected.reason
