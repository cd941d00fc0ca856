"""The end of a run: every image accounted for, the parts merged, one commit, the last record and the page.

A gate may hold the commit back: the run then ends with its parts kept, for a user to accept.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Unpack

from jobs.console.output import printable
from jobs.scoring.context import ScoringContext
from jobs.scoring.ending.merging import merge_run
from jobs.scoring.ending.report import report_committed, report_held
from pneumonia_core.bundles.baseline import read_baseline
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.gates import Drift, raised_alarms
from pneumonia_core.reports.run_page import run_page
from pneumonia_core.results.commit import DataFile
from pneumonia_core.runs.gated.earlier import EarlierRuns, earlier_runs
from pneumonia_core.runs.gated.shares import gate_shares
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.outcome.limit import concluded
from pneumonia_core.runs.outcome.timings import RunTimings
from pneumonia_core.runs.parts import ConservationError, Merged, done_chunks
from pneumonia_core.runs.planner import Gone
from pneumonia_core.runs.rebase import commit_rebased
from pneumonia_core.runs.record import RunChanges, RunResult, RunState
from pneumonia_core.runs.run import Run, chunks_still_needed, unscored_rows
from pneumonia_core.storage.errors import error_text
from pneumonia_core.storage.files import delete_file, write_bytes
from pneumonia_core.storage.location import Location
from pneumonia_core.storage.locks.lease import LeaseLost

HELD_EXIT_CODE: Final = 4


def failed_at(results: Location, error: OSError, more: str = "") -> PneumoniaError:
    """What the operating system says of work on these results, as an error for a person."""
    text = f"{error_text(error)} while working on {printable(results.uri)}."
    return PneumoniaError(text + more, Remedy.FIX_AND_RUN_AGAIN)


@contextlib.contextmanager
def telling_what_is_committed(run: Run) -> Iterator[None]:
    """Raise PneumoniaError for what the operating system says, with what it means for the rows of the run."""
    try:
        yield
    except OSError as error:
        if run.record.state in ("staged", "committed"):
            rows = "The rows of the run may be in the table: the same command finds out"
        else:
            rows = "Nothing of this run was committed"
        raise failed_at(run.results, error, f" {rows}.") from error


def commit_run(context: ScoringContext, run: Run, gone: Gone | None) -> RunResult:
    """Check that every listed image is accounted for, merge the parts, and commit them once.

    Where a gate holds the run back, nothing is committed, and its parts are kept.
    """
    done = done_chunks(run.folder)
    needed = chunks_still_needed(run)
    left = [ref for ref in needed if ref.chunk not in done]
    if left and not context.past_deadline:
        raise ConservationError(
            f"{len(left)} chunks have no part, the first is chunk {left[0].chunk}. Nothing of this run was "
            "committed.",
            Remedy.RUN_AGAIN,
        )
    with context.steps.step("merge"):
        merged = merge_run(context, run, [ref for ref in needed if ref.chunk in done])
    counts = count_images(run, merged, unscored_rows(run, left), judged=context.bundle.domain is not None)
    gates = context.options.gates
    earlier = earlier_runs(run) if gates else EarlierRuns()
    shares = gate_shares(run, counts, gone.count if gone else None, earlier) if gates else {}
    alarms = raised_alarms(gates, shares)
    drift = shares.get("drift")
    files = stage(
        run,
        merged,
        counts=counts,
        gates=alarms,
        drift=drift.index if isinstance(drift, Drift) else None,
        score_histograms={"before": earlier.scores, "validation": read_baseline(context.bundle)},
        gone=gone.count if gone else None,
        gone_digest=gone.digest if gone else None,
    )
    if any(alarm.action == "hold" for alarm in alarms):
        return _hold(context, run, merged)
    with context.steps.step("commit"):
        version = commit_rebased(run, run.record.planned_version, files) if files else None
    return conclude(context, run, version)


def stage(run: Run, merged: Sequence[Merged], /, **changes: Unpack[RunChanges]) -> list[DataFile]:
    """Record all that the commit of the run needs, and these changes; returns the files to commit."""
    files = [part.file for part in merged if part.file.rows]
    changes["files"] = tuple(file.path for file in files)
    run.advance("staged", **changes)
    return files


def count_images(run: Run, merged: Sequence[Merged], unscored: int, judged: bool) -> Counts:
    """The counts of the run. `judged` says whether the bundle tells which images are out of domain.

    Raises ConservationError unless listed = scored + rejected + unchanged + deferred.
    """
    shards = run.record.shards
    statuses: Counter[str] = sum((part.statuses for part in merged), Counter())
    reasons: Counter[str] = sum((part.reasons for part in merged), Counter())
    findings: Counter[str] = sum((part.findings for part in merged), Counter())
    counts = Counts(
        listed=sum(shard.listed for shard in shards),
        scored=statuses["scored"],
        rejected=statuses["rejected"],
        unchanged=sum(shard.unchanged for shard in shards) + len(run.superseded),
        deferred=sum(shard.deferred for shard in shards) + unscored,
        reject_reasons=dict(sorted(reasons.items())),
        findings=dict(sorted(findings.items())),
        out_of_domain=sum(part.out_of_domain for part in merged) if judged else None,
        bytes_read=sum(part.bytes_read for part in merged),
        score_histogram=tuple(
            sum(bins) for bins in zip(*(part.score_histogram for part in merged), strict=True)
        ),
    )
    if counts.listed != counts.attempted + counts.unchanged + counts.deferred:
        raise ConservationError(
            f"{counts.listed} images are listed, but {counts.scored} scored, {counts.rejected} rejected, "
            f"{counts.unchanged} unchanged and {counts.deferred} deferred. Nothing of this run was "
            "committed.",
            Remedy.START_OVER,
        )
    return counts


def _hold(context: ScoringContext, run: Run, merged: Sequence[Merged]) -> RunResult:
    """Set a staged run aside. Its parts are kept, and merged again where it is accepted."""
    for part in merged:
        delete_file(run.results.child("scores").child(part.file.path))
    timings = concluded(run.record.timings, context.steps.take())
    result = _result(run, context.started, "held", None, timings, HELD_EXIT_CODE)
    _write_page(run, "held", result)
    run.hold(files=())
    report_held(result)
    return result


def conclude(context: ScoringContext, run: Run, version: int | None) -> RunResult:
    """Write the last record and the page of a run whose rows are in this version of the table.

    `version` is None where the run had no row. A run that was killed after its commit needs only this step.
    Raises PneumoniaError where the record cannot be written.
    """
    timings = concluded(run.record.timings, context.steps.take())
    return conclude_committed(run, version, context.started, context.options.max_reject_rate, timings)


def conclude_committed(
    run: Run, version: int | None, started: float, max_reject_rate: float, timings: RunTimings | None
) -> RunResult:
    """As `conclude`, for a command that began at `started` on the clock of time.monotonic."""
    reject_rate = run.record.counts.reject_rate
    exit_code = 3 if reject_rate > max_reject_rate else 0
    result = _result(run, started, "committed", version, timings, exit_code)
    try:
        _write_page(run, "committed", result)
        run.finish("committed")
    except (OSError, LeaseLost) as error:
        raise _without_record(version, error) from error
    report_committed(result, reject_rate, max_reject_rate)
    return result


def _write_page(run: Run, state: RunState, result: RunResult) -> None:
    """Record the result, and write the page of the run as it will be in this state."""
    timings = result.timings
    run.advance(exit_code=result.exit_code, version=result.version, result=result, timings=timings)
    page = run_page(dataclasses.replace(run.record, state=state).as_json())
    write_bytes(run.folder.child("run.html"), page.encode())


def _result(
    run: Run, started: float, state: RunState, version: int | None, timings: RunTimings | None, exit_code: int
) -> RunResult:
    record = run.record
    counts = record.counts
    seconds = time.monotonic() - started
    return RunResult(
        run_id=run.run_id,
        run_date=record.run_date,
        results=run.results.uri,
        table=run.results.child("scores").uri,
        version=version,
        page=run.folder.child("run.html").uri,
        model_id=record.configuration.model_id,
        engine=record.engine,
        precision=record.precision,
        listed=counts.listed,
        scored=counts.scored,
        rejected=counts.rejected,
        unchanged=counts.unchanged,
        deferred=counts.deferred,
        gone=record.gone,
        skipped=record.skipped,
        reject_reasons=counts.reject_reasons,
        findings=counts.findings,
        out_of_domain=counts.out_of_domain,
        seconds=round(seconds, 1),
        images_per_s=round(counts.attempted / seconds, 1),
        listing_complete=record.listing_complete,
        exit_code=exit_code,
        gates=record.gates,
        drift=record.drift,
        state=state,
        timings=timings,
    )


def _without_record(version: int | None, error: OSError | LeaseLost) -> PneumoniaError:
    """The error of a run that has committed all its rows and could not write its last record."""
    rows = (
        "the run had no row to add to the table"
        if version is None
        else f"version {version} of the table has the rows of the run"
    )
    if isinstance(error, LeaseLost):
        return PneumoniaError(
            f"{rows}, but the run record was not updated, because another process may now own the run: its "
            "lease was not renewed in time.",
            Remedy.WRITE_RECORD,
        )
    return PneumoniaError(
        f"{rows}, but the run record could not be written ({error_text(error)}).", Remedy.WRITE_RECORD
    )
