"""Scores what a run lists, while it lists: planned chunks go to the workers until each has its part."""

import contextlib

from jobs.console.output import Progress, say
from jobs.ray_runtime.session import ray_errors_explained
from jobs.scoring.context import ScoringContext
from jobs.scoring.driver import Driver
from jobs.scoring.planning import NothingListed, PlanningThread, check_found
from pneumonia_core.archives.lister import Lister
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import ChunkRef
from pneumonia_core.runs.listing_round import leave_listing
from pneumonia_core.runs.outcome.timings import RunTimings
from pneumonia_core.runs.parts import done_chunks
from pneumonia_core.runs.planner import Planner
from pneumonia_core.runs.run import Run, chunks_still_needed

_POLL_S = 0.2


def score_listing(context: ScoringContext, run: Run, planner: Planner, view: TableView) -> None:
    """Score the images of the run that have no part yet, while the listing continues.

    Raises Stopped after SIGTERM, InvalidInput where an archive has no image, PneumoniaError where a chunk
    cannot be read, scored or written on any node.
    """
    todo = _chunks_left(run)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(0, "images", "scoring"))
        driver = stack.enter_context(Driver(context, run, view, progress))
        driver.add(todo)
        planning = None
        if not run.record.listing_complete:
            lister = stack.enter_context(
                Lister(context.request.archives, context.request.rules, after=run.record.listed_from)
            )
            planning = stack.enter_context(PlanningThread(context, run, planner, lister))
        if view.is_empty or todo:
            # There will be something to score.
            driver.prepare()
        try:
            with ray_errors_explained():
                _score(context, run, view, driver, planning)
        except PneumoniaError:
            # The first error counts, not that of the record: what made the run fail may hinder that, too.
            with contextlib.suppress(PneumoniaError, OSError):
                _record_work(run, driver)
            raise
        _record_work(run, driver)


def _record_work(run: Run, driver: Driver) -> None:
    """Record what the workers did, and how long it took; nothing where they did nothing."""
    if driver.images_by_node != run.record.nodes:
        timings = (run.record.timings or RunTimings()) + driver.timings()
        run.advance(nodes=driver.images_by_node, timings=timings)


def _chunks_left(run: Run) -> list[ChunkRef]:
    done = done_chunks(run.folder)
    todo = [ref for ref in chunks_still_needed(run) if ref.chunk not in done]
    if run.resumed and done:
        say(f"{len(done):,} chunks are already done, {len(todo):,} of the planned ones are left")
    return todo


def _score(
    context: ScoringContext, run: Run, view: TableView, driver: Driver, planning: PlanningThread | None
) -> None:
    while planning is not None or not driver.all_done:
        if context.stop_requested or context.past_deadline:
            _end_early(context, run, driver, planning)
            return
        if planning is not None and _take_planned(context, run, view, driver, planning):
            planning = None
        driver.turn(_POLL_S)


def _end_early(context: ScoringContext, run: Run, driver: Driver, planning: PlanningThread | None) -> None:
    """Finish the chunks that are being scored. Raises Stopped after SIGTERM."""
    if context.stop_requested:
        say("stopping: the current chunks are finished first")
    driver.finish_begun()
    context.check_stop()
    if planning is not None:
        run.advance(skipped=planning.skip_counts)
        leave_listing(run)
    say("deadline reached: what is done is committed, the rest is left for the next run")


def _take_planned(
    context: ScoringContext, run: Run, view: TableView, driver: Driver, planning: PlanningThread
) -> bool:
    """Record what has been planned and give its chunks to the driver. Returns whether that was all."""
    if driver.all_done:
        # Nothing is being scored, so there is nothing else to wait for.
        with context.steps.waiting_for_listing():
            planned = planning.take(_POLL_S)
    else:
        planned = planning.take(0.0)
    if planned is None:
        return False
    run.advance(shards=(*run.record.shards, *planned.shards), shards_until_end=planned.shards_until_end)
    for shard in planned.shards:
        driver.add(shard.chunk_refs())
    if not planned.complete:
        return False
    try:
        check_found(context.request.archives, view, planning.lister)
    except NothingListed:
        # Chunks that are already scored are kept: the same command resumes the run.
        if not done_chunks(run.folder):
            run.discard()
        raise
    run.advance("scoring", listing_complete=True, skipped=planning.skip_counts)
    return True
