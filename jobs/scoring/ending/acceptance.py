"""The acceptance of a held run: what it scored is committed as it is, without what is newer in the table."""

import time
from typing import Any

from jobs.console.output import say
from jobs.scoring.ending.commit import (
    conclude_committed,
    count_images,
    failed_at,
    stage,
    telling_what_is_committed,
)
from jobs.scoring.ending.merging import merge_here
from pneumonia_core.drift import measure_drift
from pneumonia_core.errors import Remedy
from pneumonia_core.results.commit import commit
from pneumonia_core.results.table import add_missing_columns
from pneumonia_core.runs.gated.held import opened_held_run, outdated_rows
from pneumonia_core.runs.parts import ConservationError, done_chunks
from pneumonia_core.runs.record import RunResult
from pneumonia_core.runs.registry import version_with_rows
from pneumonia_core.runs.run import Run, chunks_still_needed, unscored_rows
from pneumonia_core.storage.location import Location, open_location


def accept(results: str, run_id: str, max_reject_rate: float) -> dict[str, Any]:
    """Commit a held run of this results folder; the command's result. Nothing is scored.

    Raises InvalidInput where the run is not held, and PneumoniaError as every commit does.
    """
    location = open_location(results)
    try:
        return _accept(location, run_id, max_reject_rate).as_json()
    except OSError as error:
        raise failed_at(location, error) from error


def _accept(results: Location, run_id: str, max_reject_rate: float) -> RunResult:
    started = time.monotonic()
    with opened_held_run(results, run_id) as run, telling_what_is_committed(run):
        if (version := version_with_rows(run)) is not None:
            return conclude_committed(run, version, started, max_reject_rate, run.record.timings)
        return commit_accepted(run, started, max_reject_rate)


def commit_accepted(run: Run, started: float, max_reject_rate: float) -> RunResult:
    """Merge the parts of an accepted run and commit them on top of the table's present version.

    Rows of images that have got a row since the run was planned are left out.
    """
    record = run.record
    table = add_missing_columns(run.results, record.configuration.carry)
    done = done_chunks(run.folder)
    _check_parts(run, done)
    run.superseded = outdated_rows(run, table)
    if run.superseded:
        say(f"{len(run.superseded):,} images have got newer rows since the run was planned: unchanged")
    needed = chunks_still_needed(run)
    merged = merge_here(run, [ref for ref in needed if ref.chunk in done])
    unscored = unscored_rows(run, [ref for ref in needed if ref.chunk not in done])
    counts = count_images(run, merged, unscored, judged=record.counts.out_of_domain is not None)
    drift = measure_drift(counts.score_histogram, record.score_histograms.get("before", ()))
    files = stage(
        run,
        merged,
        counts=counts,
        drift=None if drift is None else drift.index,
        accepted=True,
        superseded=len(run.superseded),
    )
    version = None
    if files:
        run.check_lock()
        # Not rebased: a run that commits now may have newer rows of the same images.
        version = commit(run.results, table.version(), run.run_id, record.run_date, files)
    return conclude_committed(run, version, started, max_reject_rate, record.timings)


def _check_parts(run: Run, done: set[int]) -> None:
    """Raise ConservationError where parts of the run have gone since it was held."""
    refs = [ref for shard in run.record.shards for ref in shard.chunk_refs()]
    present, handled = sum(ref.rows for ref in refs if ref.chunk in done), run.record.counts.attempted
    if present < handled:
        raise ConservationError(
            f"run {run.run_id} scored or rejected {handled:,} images, but its parts have {present:,} rows. "
            "Nothing of this run was committed.",
            Remedy.START_OVER,
        )
