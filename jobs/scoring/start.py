"""Starts the execution of a run: its nodes, what it computes with, its bundle on the cluster."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.console.output import say
from jobs.ray_runtime.hash_keys import check_hash_keys
from jobs.ray_runtime.resources import ANY_NODE, GPU_NODE, Node, wait_for
from jobs.ray_runtime.session import names_a_cluster
from jobs.scoring.cache.squares import usable_squares
from jobs.scoring.context import ScoringContext
from jobs.scoring.execution.actors import ChunkJob
from jobs.scoring.execution.computation import Computation, ComputationOptions, settle_computation
from jobs.scoring.execution.engine_once import EngineSpec, ShippedFiles
from jobs.scoring.execution.execution import Execution
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.placement import CHUNKS_PER_ACTOR
from jobs.scoring.execution.rates.cluster_rates import RateSource
from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.engines import BATCH_SIZE, GPU_BATCH_SIZE, files_prefix
from pneumonia_core.bundles.rates.memory import as_json
from pneumonia_core.bundles.rates.workload import Workload
from pneumonia_core.results.clock import check_clock
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.record import RunRecord
from pneumonia_core.runs.run import Run
from pneumonia_core.scoring.chunk import RowConstants

if TYPE_CHECKING:
    from ray import ObjectRef


def start_execution(context: ScoringContext, run: Run, view: TableView, chunks: int) -> Execution | None:
    """The execution of the run, once the cluster has a node; None where the run must end before.

    A cluster without nodes is asked for what so many chunks need.
    """
    with context.steps.step("nodes"):
        nodes = _wait_for_nodes(context, chunks)
    if not nodes or context.stop_requested:
        return None
    with context.steps.step("engine"):
        hash_key = check_hash_keys(nodes)
        computation = _settled(context, run, view, nodes)
        choice = computation.choice
        files = _shipped(context, choice.engine, choice.precision)
    constants = _row_constants(context, run, view, choice)
    spec = EngineSpec(files, choice.engine, choice.precision, choice.on_gpu, constants.batch_size)
    squares = usable_squares(context.squares_of(run))
    context.cache_failed = squares is None
    job = ChunkJob(run.folder, constants, spec, squares)
    chunk_rows = run.record.configuration.chunk_size
    return Execution(context.take_queue(), job, computation.placement, chunk_rows, hash_key)


def _wait_for_nodes(context: ScoringContext, chunks: int) -> list[Node]:
    """The nodes of the cluster, once it has one. With `--shape gpu` a cluster has time to grow a GPU."""
    options = context.options
    needed = GPU_NODE if options.shape == "gpu" and names_a_cluster(options.address) else ANY_NODE
    actors = math.ceil(chunks / CHUNKS_PER_ACTOR)
    most = options.actors[1] if options.actors else actors
    return wait_for(needed, context.until, lambda: context.stop_requested, min(actors, most))


def _settled(context: ScoringContext, run: Run, view: TableView, nodes: Sequence[Node]) -> Computation:
    """What the run computes with, settled before its first chunk is scored. A resumed run keeps it.

    Engines are measured only for a run that is long enough to gain by it, and only until an earlier run has.
    Raises PneumoniaError where the clock of this machine cannot date rows.
    """
    request, record = context.request, run.record
    options = ComputationOptions(
        record.engine or request.engine,
        record.precision or request.precision,
        context.options.shape,
        context.options.placement,
    )
    to_score = sum(shard.to_score for shard in record.shards)
    workload = Workload(to_score, record.listing_complete, context.left_s)
    source = RateSource(
        context.results,
        lambda engine, precision: _shipped(context, engine, precision),
        workload,
        lambda: context.stop_requested,
    )
    computation = settle_computation(context.bundle, options, nodes, source)
    choice, rates = computation.choice, computation.rates
    reasons = (computation.reason, computation.gpu_actors.reason if computation.gpu_actors else "")
    for reason in filter(None, reasons):
        say(reason)
    batch_size = settled_batch_size(record, choice.on_gpu)
    run.advance(
        "scoring",
        engine=choice.engine,
        precision=choice.precision,
        batch_size=batch_size,
        # A run that is resumed had its reason.
        engine_reason=computation.reason or record.engine_reason,
        actors_per_gpu=computation.placement.actors_per_gpu,
        actors_per_gpu_reason=computation.gpu_actors.reason if computation.gpu_actors else None,
    )
    if rates is not None:
        run.advance(rates=as_json(rates.rates), rates_origin=rates.origin)
    check_clock(run.folder.child("run.json"), view.newest_row())
    return computation


def settled_batch_size(record: RunRecord, on_gpu: bool) -> int:
    """The images of a batch: as recorded, else as asked for, else what suits the devices."""
    if record.batch_size is not None:
        return record.batch_size
    if record.engine is not None:
        # Begun by a version that had no other.
        return BATCH_SIZE
    return record.configuration.batch_size or (GPU_BATCH_SIZE if on_gpu else BATCH_SIZE)


def _shipped(context: ScoringContext, engine: str, precision: str) -> "ObjectRef[ShippedFiles]":
    files = files_prefix(engine, precision)
    if files not in context.shipped:
        context.shipped[files] = ship_bundle(context.bundle, engine, precision)
    return context.shipped[files]


def _row_constants(context: ScoringContext, run: Run, view: TableView, choice: EngineChoice) -> RowConstants:
    bundle = context.bundle
    return RowConstants(
        run.run_id,
        bundle.model_id,
        choice.engine,
        choice.precision,
        bundle.thresholds,
        bundle.image_size,
        view.newest_row(),
        bundle.domain,
        bundle.spec.conformal,
        run.record.configuration.trust_chest,
        run.record.batch_size or BATCH_SIZE,
    )
