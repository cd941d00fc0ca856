"""The two shapes of the scoring pipeline: Ray Data graphs over the same read, decode and score functions."""

import warnings
from typing import Any, Final

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset, ExecutionResources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.ray_runtime.data_context import data_context
from jobs.ray_runtime.resources import cluster_cpus, present_nodes
from jobs.scoring.execution.actors import ChunkJob, ScoreChunk, ScoreDecoded, decode_chunk
from jobs.scoring.execution.blocks import queued_items
from jobs.scoring.execution.engine_once import ShippedFiles
from jobs.scoring.execution.placement import CHUNKS_PER_ACTOR, Placement, threads
from jobs.scoring.execution.queue import QueueClient
from jobs.scoring.execution.seats import SeatPicker
from pneumonia_core.bundles.bundle import Bundle, read_engine_files

# One more is on its way. Ray Data then sees a pool that is used to 150 %.
IN_FLIGHT_PER_ACTOR: Final = CHUNKS_PER_ACTOR + 1
_GROW_AT: Final = 1.0
_NEVER: Final = -1.0


def ship_bundle(bundle: Bundle, engine: str, precision: str) -> ray.ObjectRef[ShippedFiles]:
    """The files of a bundle that the engine needs to compute in this precision, in Ray's object store."""
    files = read_engine_files(bundle, engine, precision)
    return ray.put({name: np.frombuffer(data, np.uint8) for name, data in files.items()})


def scoring_graph(
    queue: QueueClient, job: ChunkJob, picker: SeatPicker, placement: Placement, chunk_rows: int
) -> Dataset:
    """From the queue's items to tables of OUTCOME_SCHEMA. Nothing runs yet.

    Each chunk is a block of one row all the way, `chunk_rows` is the most images of one.
    """
    chunk_bytes = chunk_rows * job.constants.image_size**2
    seats = placement.seated(present_nodes())
    # A batch is one row: Ray Data takes GPUs only where a batch has a size.
    one_chunk: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    with data_context() as context, warnings.catch_warnings():
        # `scheduling_strategy` and `ray_remote_args_fn` are to go in Ray 2.64; there is nothing else yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        _set_up(context, chunk_bytes, placement, len(seats))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Ray's types do not know fn_args.
        source: Any = queued_items
        data: Any = ray.data.from_items([0]).map_batches(
            source,
            fn_args=(queue,),
            batch_size=None,
            num_cpus=0,
            scheduling_strategy=here,
        )
        if placement.kind == "gpu":
            data = data.map_batches(
                decode_chunk,
                fn_args=(job, queue, threads(placement.decode_cpus)),
                num_cpus=placement.decode_cpus,
                # Also keeps Ray Data from fusing the tasks into actors that ask for the same CPUs.
                memory=chunk_bytes,
                **one_chunk,
            )
        graph: Dataset = data.map_batches(
            ScoreDecoded if placement.kind == "gpu" else ScoreChunk,
            # Not to the constructor: an actor whose constructor holds an object cannot be restarted when that
            # is lost.
            fn_args=(job,),
            fn_constructor_args=(queue,),
            compute=ActorPoolStrategy(
                min_size=placement.least,
                max_size=placement.most,
                initial_size=max(len(seats), placement.least),
                max_tasks_in_flight_per_actor=IN_FLIGHT_PER_ACTOR,
                max_concurrent_calls_per_actor=CHUNKS_PER_ACTOR,
                enable_true_multi_threading=True,
            ),
            # What Ray Data counts with; each actor gets the resources of its seat.
            num_cpus=picker.smallest(),
            num_gpus=placement.actor_gpus or None,
            ray_remote_args_fn=picker,
            **one_chunk,
        )
    return graph


def _set_up(context: ray.data.DataContext, chunk_bytes: int, placement: Placement, actors: int) -> None:
    """Settings of Ray Data for this graph alone."""
    # Each row is a block, which leaves its task at once.
    context.target_max_block_size = 1
    # A fleet may be away for long; the driver knows whether workers are stuck.
    context.execution_no_progress_timeout_s = -1
    # One actor at a time, so that none is started for which there is no seat.
    context.autoscaling_config.actor_pool_max_upscaling_delta = 1
    context.autoscaling_config.actor_pool_util_upscaling_threshold = _GROW_AT
    # An actor that waits for the listing keeps its engine.
    context.autoscaling_config.actor_pool_util_downscaling_threshold = _NEVER
    if placement.kind == "gpu":
        # How far decoding may run ahead of the engine: a lost node loses its decoded chunks.
        tasks = cluster_cpus() / placement.decode_cpus
        chunks = (IN_FLIGHT_PER_ACTOR + 1) * (placement.most or actors) + 2 * tasks
        context.execution_options.resource_limits = ExecutionResources.for_limits(
            object_store_memory=max(4.0, chunks) * chunk_bytes
        )
