"""The two shapes of the scoring pipeline, as Ray Data graphs over the same read, decode and score functions."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from jobs.ray_runtime.resources import cluster_cpus
from jobs.scoring.actors import ChunkJob, Receipt, ScoreChunk, ScoreDecoded, decode_chunk
from jobs.scoring.placement import Placement
from pneumonia_core.bundles.bundle import Bundle, read_engine_files
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.inventory import ChunkRef

# While one chunk's part is written, the other's images keep the cores busy.
CHUNKS_PER_ACTOR: Final = 2
NO_PROGRESS_S: Final = 600
NO_PROGRESS_IMAGES: Final = 256


def ship_bundle(bundle: Bundle, engine: str) -> Any:
    """The files of a bundle that the engine needs, in Ray's object store."""
    import ray

    return ray.put(read_engine_files(bundle, engine))


def score_chunks(refs: Sequence[ChunkRef], job: ChunkJob, shape: Placement) -> Iterator[Receipt]:
    """Score chunks on the cluster; a receipt for each, as its part is written."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    # A chunk stays one block all the way, however large its images are.
    context.target_max_block_size = 2**31
    # Only a finished chunk counts as progress, and a large one takes longer.
    largest = max(ref.rows for ref in refs)
    context.execution_no_progress_timeout_s = NO_PROGRESS_S * max(1, largest // NO_PROGRESS_IMAGES)
    context.execution_options.resource_limits = _limits(refs, job, shape)
    pool = ActorPoolStrategy(
        min_size=shape.min_actors,
        max_size=shape.max_actors,
        max_tasks_in_flight_per_actor=CHUNKS_PER_ACTOR + 1,
        max_concurrent_calls_per_actor=CHUNKS_PER_ACTOR,
        enable_true_multi_threading=True,
    )
    whole_block: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    data: Any = ray.data.from_arrow([_ref_table(ref) for ref in refs])
    if shape.kind == "gpu":
        data = data.map_batches(
            decode_chunk,
            fn_args=(job, shape.decode_threads),
            num_cpus=shape.decode_cpus,
            # Also keeps Ray Data from fusing the tasks into actors that ask for the same CPUs.
            memory=max(ref.rows for ref in refs) * job.facts.image_size**2,
            **whole_block,
        )
    scorer: Any = ScoreDecoded if shape.kind == "gpu" else ScoreChunk
    data = data.map_batches(
        scorer,
        # Not to the constructor: an actor whose constructor holds an object cannot be restarted when that is lost.
        fn_args=(job,),
        fn_constructor_args=(shape.actor_threads,),
        compute=pool,
        num_cpus=shape.actor_cpus,
        num_gpus=shape.actor_gpus or None,
        **whole_block,
    )
    for table in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4):
        for row in table.to_pylist():
            receipt = Receipt(**row)
            if receipt.error is not None:
                raise PneumoniaError(receipt.error)
            yield receipt


def _limits(refs: Sequence[ChunkRef], job: ChunkJob, shape: Placement) -> Any:
    """How far decoding may run ahead of the engine: what is decoded but not scored is read again after a death."""
    from ray.data import ExecutionResources

    if shape.kind == "cpu":
        return ExecutionResources.for_limits()
    chunk_bytes = max(ref.rows for ref in refs) * job.facts.image_size**2
    chunks = (CHUNKS_PER_ACTOR + 2) * shape.max_actors + 2 * cluster_cpus() / shape.decode_cpus
    return ExecutionResources.for_limits(object_store_memory=max(4.0, chunks) * chunk_bytes)


def _ref_table(ref: ChunkRef) -> pa.Table:
    return pa.table({name: [value] for name, value in vars(ref).items()})
