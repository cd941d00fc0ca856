"""Listing and scoring at the same time: the images listed so far are planned and scored as a micro-batch."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from jobs.console.output import Progress, printable, say
from jobs.ray_runtime.resources import ANY_NODE, GPU_NODE, GROWTH_S, Node, wait_for
from jobs.ray_runtime.session import names_a_cluster, ray_errors_explained
from jobs.scoring.context import ScoringContext, chunks_stopped_in_time, start_ray
from jobs.scoring.execution.actors import ChunkJob, EngineSpec, Receipt
from jobs.scoring.execution.placement import Shape, choose_placement
from pneumonia_core.archives.lister import Lister
from pneumonia_core.archives.skipped import describe_skipped
from pneumonia_core.bundles.bundle import choose_engine
from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import ChunkRef
from pneumonia_core.runs.parts import done_chunks
from pneumonia_core.runs.planner import Planner
from pneumonia_core.runs.run import Run, chunks_still_needed, clear_stop
from pneumonia_core.scoring.chunk import RowConstants

FIRST_LISTING_WAIT_S: Final = 10.0
# Each micro-batch reads the table once, so the waits grow. The cluster has nothing to do during a wait.
LONGEST_LISTING_WAIT_S: Final = 300.0
# Bounds what Ray Data holds of a micro-batch in the driver.
CHUNKS_PER_EXECUTION: Final = 2048
_POLL_S: Final = 0.5


def score_listing(context: ScoringContext, run: Run, planner: Planner, view: TableView) -> None:
    """Score the listed images while the listing continues, in micro-batches that grow with it.

    Raises Stopped after SIGTERM, InvalidInput where an archive has no image.
    """
    clear_stop(run.folder)
    done = done_chunks(run.folder)
    todo = [ref for ref in chunks_still_needed(run) if ref.chunk not in done]
    if run.resumed and done:
        say(f"{len(done):,} chunks are already done, {len(todo):,} of the planned ones are left")
    with (
        Progress(0, "images", "scoring") as progress,
        chunks_stopped_in_time(context, run.folder),
    ):
        tally = _Tally(progress)
        tally.grow(todo)
        if view.is_empty or todo:
            start_ray(context)
        if run.record.listing_complete:
            _score_micro_batch(context, run, view, todo, tally)
            return
        with Lister(context.request.archives, context.request.rules) as lister:
            for number in itertools.count():
                _score_micro_batch(context, run, view, todo, tally)
                context.check_stop()
                if context.past_deadline:
                    run.advance(skipped=lister.skip_counts)
                    say("deadline reached: what is done is committed, the rest is left for the next run")
                    return
                _wait_for_listing(context, lister, listing_wait_s(context, number))
                complete = lister.done
                todo = _plan_micro_batch(run, planner, lister)
                tally.grow(todo)
                if complete:
                    break
            _check_found(context, run, view, lister)
            run.advance("scoring", listing_complete=True, skipped=lister.skip_counts)
            _score_micro_batch(context, run, view, todo, tally)


def listing_wait_s(context: ScoringContext, number: int) -> float:
    """How long to wait for the listing after micro-batch `number`, counted from 0.

    Each wait is longer than the one before, and none goes beyond the deadline.
    """
    # The exponent is bounded: otherwise the float overflows after a thousand micro-batches.
    return min(FIRST_LISTING_WAIT_S * 2 ** min(number, 10), LONGEST_LISTING_WAIT_S, max(context.left_s, 0.0))


def _wait_for_listing(context: ScoringContext, lister: Lister, wait_s: float) -> None:
    """Wait until the listing is done, at most `wait_s` seconds. Raises Stopped."""
    until = time.monotonic() + wait_s
    while not lister.wait(min(_POLL_S, max(until - time.monotonic(), 0.0))):
        context.check_stop()
        if time.monotonic() >= until:
            return


def _plan_micro_batch(run: Run, planner: Planner, lister: Lister) -> list[ChunkRef]:
    segments = lister.take()
    if not segments:
        return []
    record = run.record
    planned = planner.plan(segments, record.shards, record.configuration.chunk_size, relisted=run.resumed)
    run.advance(shards=(*record.shards, *planned))
    return [ref for shard in planned for ref in shard.chunk_refs()]


def _check_found(context: ScoringContext, run: Run, view: TableView, lister: Lister) -> None:
    try:
        check_found(context.request.archives, view, lister)
    except InvalidInput:
        # Chunks that are already scored are kept: the same command resumes the run.
        if not done_chunks(run.folder):
            run.discard()
        raise


def check_found(archives: Sequence[str], view: TableView, lister: Lister) -> None:
    """Raise InvalidInput where the listing has no image, or none of an archive whose images the table has.

    A storage that is not mounted looks like an empty folder, and its images would count as gone.
    """
    skipped = f" (skipped: {describe_skipped(lister.skip_counts)})" if lister.skip_counts else ""
    if known := view.known_images(lister.empty):
        empty = " nor in ".join(f"{printable(uri)}, of which the table has {n:,}" for uri, n in known.items())
        raise InvalidInput(
            f"no images found in {empty}{skipped}. Check that its storage is mounted, then run the command "
            "again. Leave an archive out of the command if it is really empty."
        )
    if not lister.listed:
        listed = ", ".join(printable(archive) for archive in archives)
        raise InvalidInput(f"no images found in {listed}{skipped}. Check the archive's path.")


def _score_micro_batch(
    context: ScoringContext, run: Run, view: TableView, refs: Sequence[ChunkRef], tally: "_Tally"
) -> None:
    """Score these chunks on the cluster. Raises Stopped after SIGTERM."""
    if not refs or context.past_deadline:
        return
    # Ray reads its environment on import, which the session sets first.
    start_ray(context)
    # Imports Ray Data, which takes a second: most nights score little or nothing.
    from jobs.scoring.execution.pipeline import score_chunks, ship_bundle

    nodes = _wait_for_nodes(context)
    context.check_stop()
    if not nodes:
        return
    kind = _shape(context, nodes)
    placement = choose_placement(nodes, kind, context.options.placement)
    gpu = kind == "gpu"
    engine = _chosen_engine(context, run, gpu)
    if engine not in context.shipped:
        context.shipped[engine] = ship_bundle(context.bundle, engine)
    spec = EngineSpec(context.shipped[engine], engine, context.request.precision, gpu)
    job = ChunkJob(run.folder, _row_constants(context, run, view, engine), spec)
    for start in range(0, len(refs), CHUNKS_PER_EXECUTION):
        with ray_errors_explained():
            for receipt in score_chunks(refs[start : start + CHUNKS_PER_EXECUTION], job, placement):
                tally.add(receipt)
        context.check_stop()


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


@dataclass
class _Tally:
    """The progress bar, and the rejected images of this command that it shows."""

    progress: Progress
    rejected: int = 0

    def grow(self, refs: Sequence[ChunkRef]) -> None:
        """These chunks are to be scored too."""
        self.progress.total = (self.progress.total or 0) + sum(ref.rows for ref in refs)

    def add(self, receipt: Receipt) -> None:
        """A chunk is done."""
        self.rejected += receipt.rejected
        self.progress.advance(receipt.scored + receipt.rejected, rejected=self.rejected)


def _chosen_engine(context: ScoringContext, run: Run, gpu: bool) -> str:
    """The engine of the run, chosen for its first micro-batch."""
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
