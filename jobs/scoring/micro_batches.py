"""Listing and scoring at once: what is listed so far is planned and scored in waves."""

import itertools
from collections.abc import Sequence
from typing import Any, Final

from jobs.console.output import Progress, printable, say
from jobs.ray_runtime.session import ray_errors_explained
from jobs.scoring.context import ScoringContext, check_stop, start_ray
from pneumonia_core.archives.skipped import describe_skipped
from pneumonia_core.errors import InvalidInput
from pneumonia_core.runs.record import Run

FIRST_LISTING_WAIT_S: Final = 10.0
# Each wave reads the table once, so that the waits grow; the cluster has nothing to do meanwhile.
LONGEST_LISTING_WAIT_S: Final = 300.0
# Bounds what Ray Data holds of a wave in the driver.
CHUNKS_PER_WAVE: Final = 2048


def score_listing(work: ScoringContext, run: Run, planner: Any, superseded: frozenset[int]) -> None:
    """Score what is listed while the listing goes on, in waves that grow with it."""
    from pneumonia_core.archives.lister import Lister
    from pneumonia_core.runs.parts import done_chunks
    from pneumonia_core.runs.record import clear_stop

    clear_stop(run.folder)
    work.run_folder = run.folder
    done = done_chunks(run.folder)
    todo = [ref for ref in chunks_still_needed(run, superseded) if ref.chunk not in done]
    if run.resumed and done:
        say(f"{len(done):,} chunks are done already, {len(todo):,} of those listed are left")
    with Progress(sum(ref.rows for ref in todo), "images", "scoring") as progress:
        if planner.table_is_empty or todo:
            start_ray(work)
        if run.record["listing_complete"]:
            _score_wave(work, run, planner, todo, progress)
            return
        with Lister(work.order.archives, work.order.rules) as lister:
            for wave in itertools.count():
                _score_wave(work, run, planner, todo, progress)
                check_stop(work)
                if work.past_deadline:
                    run.save(skipped=lister.skip_counts)
                    say("the deadline has come: what is done is committed, the rest is left for the next run")
                    return
                lister.wait(listing_wait_s(work, wave))
                complete = lister.done
                todo = _plan_wave(run, planner, lister)
                progress.total = (progress.total or 0) + sum(ref.rows for ref in todo)
                if complete:
                    break
            _check_found(work, run, planner, lister)
            run.save(listing_complete=True, state="scoring", skipped=lister.skip_counts)
            _score_wave(work, run, planner, todo, progress)


def listing_wait_s(work: ScoringContext, wave: int) -> float:
    """How long the listing is left alone after a wave, counted from 0: longer each time, never beyond the deadline."""
    # Beyond ten doublings a float would overflow one day.
    return min(FIRST_LISTING_WAIT_S * 2 ** min(wave, 10), LONGEST_LISTING_WAIT_S, max(work.left_s, 0.0))


def _plan_wave(run: Run, planner: Any, lister: Any) -> list[Any]:
    segments = lister.take()
    if not segments:
        return []
    chunk_size = run.record["configuration"]["chunk_size"]
    batches = planner.plan(segments, run.batches, chunk_size, relisted=run.resumed)
    run.batches.extend(batches)
    run.save()
    return [ref for batch in batches for ref in batch.chunk_refs()]


def _check_found(work: ScoringContext, run: Run, planner: Any, lister: Any) -> None:
    from pneumonia_core.runs.parts import done_chunks

    try:
        check_found(work.order.archives, planner, lister)
    except InvalidInput:
        # What is scored already is kept for the same command.
        if not done_chunks(run.folder):
            run.discard()
        raise


def check_found(archives: Sequence[str], planner: Any, lister: Any) -> None:
    """Raise InvalidInput where the listing found no image at all, or none of an archive of which the table knows some:
    a storage that is not mounted looks like an empty folder, and its images would count as gone."""
    skipped = f" (skipped: {describe_skipped(lister.skip_counts)})" if lister.skip_counts else ""
    if known := planner.known_images(lister.empty):
        empty = " nor in ".join(f"{printable(uri)}, of which the table has {n:,}" for uri, n in known.items())
        raise InvalidInput(
            f"no images found in {empty}{skipped}. Check that its storage is mounted, then run the same command again; "
            "an archive that is really empty is to be left out of the command."
        )
    if not lister.listed:
        listed = ", ".join(printable(archive) for archive in archives)
        raise InvalidInput(f"no images found in {listed}{skipped}. Check the archive's path.")


def _score_wave(
    work: ScoringContext, run: Run, planner: Any, refs: Sequence[Any], progress: Progress
) -> None:
    """Score these chunks on the cluster. Raises Stopped where the run was asked to stop."""
    if not refs or work.past_deadline:
        return
    from jobs.scoring.pipeline import score_chunks
    from pneumonia_core.runs.record import request_stop

    job, shape = _chunk_job(work, run, planner)
    asked = False
    for start in range(0, len(refs), CHUNKS_PER_WAVE):
        with ray_errors_explained():
            for receipt in score_chunks(refs[start : start + CHUNKS_PER_WAVE], job, shape):
                rejected = _add(run, "rejected", receipt.rejected)
                progress.advance(receipt.scored + receipt.rejected, rejected=rejected)
                if work.past_deadline and not asked:
                    request_stop(run.folder)
                    asked = True
        check_stop(work)


def _add(run: Run, name: str, count: int) -> int:
    run.record["counts"][name] = run.record["counts"].get(name, 0) + count
    return int(run.record["counts"][name])


def _chunk_job(work: ScoringContext, run: Run, planner: Any) -> tuple[Any, Any]:
    """What the actors need, and the shape for this cluster; the engine is chosen once for the run."""
    from jobs.scoring.actors import ChunkJob
    from jobs.scoring.pipeline import ship_bundle
    from jobs.scoring.placement import choose_placement
    from pneumonia_core.bundles.bundle import choose_engine
    from pneumonia_core.scoring.chunk import RowConstants

    start_ray(work)
    shape = choose_placement(
        work.settings.shape, work.settings.actors, work.settings.decode_cpus, work.settings.actor_cpus
    )
    gpu = shape.actor_gpus > 0
    engine = run.record.get("engine") or choose_engine(work.bundle, work.order.engine, gpu)
    if run.record.get("engine") is None:
        run.save(engine=engine, state="scoring")
    bundle = work.bundle
    facts = RowConstants(
        run.run_id,
        bundle.model_id,
        engine,
        bundle.thresholds,
        bundle.image_size,
        planner.newest_row(),
        bundle.domain,
    )
    return ChunkJob(run.folder, facts, work.order.precision, gpu, ship_bundle(bundle, engine)), shape


def chunks_still_needed(run: Run, superseded: frozenset[int]) -> list[Any]:
    """The chunks of the run, but for those whose rows another run has all committed."""
    from pneumonia_core.runs.inventory import read_chunk

    refs = [ref for batch in run.batches for ref in batch.chunk_refs()]
    if not superseded:
        return refs
    return [
        ref for ref in refs if not superseded.issuperset(read_chunk(run.folder, ref)["row_id"].to_pylist())
    ]
