"""The two shapes of the scoring pipeline: Ray Data graphs over the same read, decode and score functions."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset, ExecutionResources

from jobs.ray_runtime.data_context import data_context
from jobs.ray_runtime.resources import cluster_cpus, present_nodes
from jobs.scoring.execution.actors import (
    ChunkFailure,
    ChunkJob,
    Receipt,
    ScoreChunk,
    ScoreDecoded,
    decode_chunk,
    outcomes,
)
from jobs.scoring.execution.placement import Placement, threads
from pneumonia_core.bundles.bundle import Bundle, read_engine_files
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.runs.inventory import ChunkRef

# While one chunk's part is written, the other chunk's images keep the cores busy.
CHUNKS_PER_ACTOR: Final = 2
NO_PROGRESS_S: Final = 600
NO_PROGRESS_IMAGES: Final = 256


def ship_bundle(bundle: Bundle, engine: str) -> ray.ObjectRef[dict[str, bytes]]:
    """The files of a bundle that the engine needs, in Ray's object store."""
    return ray.put(read_engine_files(bundle, engine))


def score_chunks(refs: Sequence[ChunkRef], job: ChunkJob, placement: Placement) -> Iterator[Receipt]:
    """Score chunks on the cluster. Yields a receipt for each as its part is written.

    Raises PneumoniaError where a chunk could not be read, scored or written.
    """
    for table in _receipts(refs, job, placement).iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=4
    ):
        for outcome in outcomes(table):
            if isinstance(outcome, ChunkFailure):
                raise PneumoniaError(outcome.error, outcome.remedy)
            yield outcome


def _receipts(refs: Sequence[ChunkRef], job: ChunkJob, placement: Placement) -> Dataset:
    """The graph: chunk references in, tables of RECEIPT_SCHEMA out. Nothing runs yet."""
    seats = placement.seated(present_nodes())
    # A pool's actors are alike: the smallest share fits on every node.
    actor_cpus = min((seat.cpus for seat in seats), default=1.0)
    pool = ActorPoolStrategy(
        min_size=placement.least,
        max_size=max(placement.most or len(seats), placement.least),
        max_tasks_in_flight_per_actor=CHUNKS_PER_ACTOR + 1,
        max_concurrent_calls_per_actor=CHUNKS_PER_ACTOR,
        enable_true_multi_threading=True,
    )
    gpu_share: Any = partial(dict, num_gpus=placement.actor_gpus)
    largest = max(ref.rows for ref in refs)
    chunk_bytes = largest * job.constants.image_size**2
    whole_block: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    with data_context() as context:
        # A chunk stays one block all the way, however large its images are.
        context.target_max_block_size = 2**31
        # Only a finished chunk counts as progress, and a large one takes longer.
        context.execution_no_progress_timeout_s = NO_PROGRESS_S * max(1, largest // NO_PROGRESS_IMAGES)
        context.execution_options.resource_limits = _limits(chunk_bytes, placement, len(seats))
        # Ray's types do not know fn_args.
        data: Any = ray.data.from_arrow([_ref_table(ref) for ref in refs])
        if placement.kind == "gpu":
            data = data.map_batches(
                decode_chunk,
                fn_args=(job, threads(placement.decode_cpus)),
                num_cpus=placement.decode_cpus,
                # Also keeps Ray Data from fusing the tasks into actors that ask for the same CPUs.
                memory=chunk_bytes,
                **whole_block,
            )
        receipts: Dataset = data.map_batches(
            ScoreDecoded if placement.kind == "gpu" else ScoreChunk,
            # Not to the constructor: an actor whose constructor holds an object cannot be restarted when that
            # is lost.
            fn_args=(job,),
            fn_constructor_args=(threads(actor_cpus),),
            compute=pool,
            num_cpus=actor_cpus,
            # Ray Data takes `num_gpus` only with a batch size, which would put several chunks together.
            ray_remote_args_fn=gpu_share if placement.kind == "gpu" else None,
            **whole_block,
        )
    return receipts


def _limits(chunk_bytes: int, placement: Placement, actors: int) -> ExecutionResources:
    """How far decoding may run ahead of the engine: a lost node loses its decoded chunks."""
    if placement.kind == "cpu":
        return ExecutionResources.for_limits()
    chunks = (CHUNKS_PER_ACTOR + 2) * (placement.most or actors) + 2 * cluster_cpus() / placement.decode_cpus
    return ExecutionResources.for_limits(object_store_memory=max(4.0, chunks) * chunk_bytes)


def _ref_table(ref: ChunkRef) -> pa.Table:
    return pa.table({name: [value] for name, value in vars(ref).items()})
