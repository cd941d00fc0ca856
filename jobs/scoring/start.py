"""Starts the execution of a run: its nodes, its placement, its engine, its bundle on the cluster."""

import time
from collections.abc import Sequence

from jobs.ray_runtime.resources import ANY_NODE, GPU_NODE, GROWTH_S, Node, wait_for
from jobs.ray_runtime.session import names_a_cluster
from jobs.scoring.context import ScoringContext
from jobs.scoring.execution.actors import ChunkJob
from jobs.scoring.execution.engine_once import EngineSpec
from jobs.scoring.execution.execution import Execution
from jobs.scoring.execution.graph import ship_bundle
from jobs.scoring.execution.placement import Shape, choose_placement
from pneumonia_core.bundles.bundle import choose_engine
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.run import Run
from pneumonia_core.scoring.chunk import RowConstants


def start_execution(context: ScoringContext, run: Run, view: TableView) -> Execution | None:
    """The execution of the run, once the cluster has a node; None where the run must end before."""
    nodes = _wait_for_nodes(context)
    if not nodes or context.stop_requested:
        return None
    kind = _shape(context, nodes)
    placement = choose_placement(nodes, kind, context.options.placement)
    gpu = kind == "gpu"
    engine = _chosen_engine(context, run, gpu)
    if engine not in context.shipped:
        context.shipped[engine] = ship_bundle(context.bundle, engine)
    spec = EngineSpec(context.shipped[engine], engine, context.request.precision, gpu)
    job = ChunkJob(run.folder, _row_constants(context, run, view, engine), spec)
    return Execution(job, placement, run.record.configuration.chunk_size)


def _wait_for_nodes(context: ScoringContext) -> list[Node]:
    """The nodes of the cluster, once it has one. With `--shape gpu` a cluster has time to grow a GPU."""
    nodes = wait_for(ANY_NODE, context.until, lambda: context.stop_requested)
    if context.options.shape == "gpu" and names_a_cluster(context.options.address):
        until = min(context.until, time.monotonic() + GROWTH_S)
        return wait_for(GPU_NODE, until, lambda: context.stop_requested)
    return nodes


def _shape(context: ScoringContext, nodes: Sequence[Node]) -> Shape:
    if context.options.shape == "auto":
        gpus = context.request.engine == "tensorflow" and any(node.gpus for node in nodes)
        return "gpu" if gpus else "cpu"
    return "gpu" if context.options.shape == "gpu" else "cpu"


def _chosen_engine(context: ScoringContext, run: Run, gpu: bool) -> str:
    """The engine of the run, chosen when its first chunk is scored."""
    engine = run.record.engine
    if engine is None:
        engine = choose_engine(context.bundle, context.request.engine, gpu)
        run.advance("scoring", engine=engine)
    return engine


def _row_constants(context: ScoringContext, run: Run, view: TableView, engine: str) -> RowConstants:
    bundle = context.bundle
    return RowConstants(
        run.run_id,
        bundle.model_id,
        engine,
        bundle.thresholds,
        bundle.image_size,
        view.newest_row(),
        bundle.domain,
    )
