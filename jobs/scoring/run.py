"""A scoring run from its listing to its commit: list, plan, score, check, commit."""

import contextlib
import time
from dataclasses import replace
from typing import Any

from deltalake import DeltaTable

from jobs.console.output import printable, say
from jobs.scoring.cache.squares import index_squares
from jobs.scoring.context import ExecutionOptions, ScoringContext, scoring_instead, stopping_on_sigterm
from jobs.scoring.dry_run import dry_run as plan_only
from jobs.scoring.ending.acceptance import commit_accepted
from jobs.scoring.ending.commit import commit_run, conclude, failed_at, telling_what_is_committed
from jobs.scoring.ending.report import report_skipped
from jobs.scoring.options import ScoreOptions
from jobs.scoring.planning import NothingListed
from jobs.scoring.request import execution_options, make_request
from jobs.scoring.score_listing import score_listing
from pneumonia_core.bundles.bundle import Bundle, open_bundle
from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table import add_missing_columns, existing_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.gated.held import abandon_held_runs
from pneumonia_core.runs.inventory import check_inventory
from pneumonia_core.runs.listing_round import begin_where_last_stood, listed_in_round
from pneumonia_core.runs.planner import Gone, Planner, PlanningRules
from pneumonia_core.runs.record import RunRecord, RunRequest, RunResult
from pneumonia_core.runs.registry import last_committed, open_run, version_with_rows
from pneumonia_core.runs.rescore_choice import any_model_counts, remember_rescore
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.files import make_folder
from pneumonia_core.storage.location import Location, open_location


def score(results: str, options: ScoreOptions, bundle: Bundle, dry_run: bool = False) -> dict[str, Any]:
    """Score as the options say, with the bundle that they name, into this results folder.

    The bundle is given opened, and opened once: an alias may point to another by the time the images are
    scored. Returns the command's result. A dry run only plans. Raises PneumoniaError where a file cannot be
    read or written.
    """
    request = make_request(options, bundle)
    execution = execution_options(options)
    location = open_location(results)
    if dry_run:
        return plan_only(location, request)
    make_folder(location)
    try:
        return score_archives(location, request, bundle, execution).as_json()
    except OSError as error:
        raise failed_at(location, error) from error


def score_archives(
    results: Location, request: RunRequest, bundle: Bundle, options: ExecutionOptions
) -> RunResult:
    """Finish the unfinished run of this request, if there is one, then carry out the request.

    Returns the result of the last run.
    """
    with contextlib.ExitStack() as session:
        context = ScoringContext(results, request, options, bundle, session)
        with stopping_on_sigterm(context):
            if options.fresh:
                for run_id in abandon_held_runs(results, request):
                    say(f"abandoned run {run_id}, which was held")
            while True:
                run, result = _score_once(context)
                if result is None:
                    continue
                # The run that was accepted is not the one that is requested.
                own = run.matches(request) and not run.record.accepted
                if own and (not run.resumed or result.run_date == request.run_date):
                    return result
                ended = "held" if result.state == "held" else "finished"
                finished = f"{ended} the run of {result.run_date} with the model {result.model_id}"
                if context.past_deadline:
                    say(f"{finished}; the deadline leaves no time for the run of {request.run_date}")
                    return result
                say(f"{finished}; the run of {request.run_date} is next")


def _score_once(context: ScoringContext) -> tuple[Run, RunResult | None]:
    """One run from its listing to its commit, new or resumed, and its result; None where it is abandoned."""
    request = context.request
    version = add_missing_columns(context.results, request.rules.carry).version()
    fresh = context.options.fresh
    with open_run(context.results, request, version, fresh) as run, telling_what_is_committed(run):
        say(f"{'resuming' if run.resumed else 'run'} {run.run_id}, date {run.record.run_date}")
        if (committed := version_with_rows(run)) is not None:
            result = conclude(context, run, committed)
            index_squares(context.squares_of(run), run.run_id)
            return run, result
        if run.record.accepted:
            return run, commit_accepted(run, context.started, context.options.max_reject_rate)
        # Opened again: a run of the same images may have committed while this one waited to begin.
        table = existing_table(context.results)
        if run.matches(request):
            return run, _score_run(context, run, table)
        return run, _score_with_own_model(context, run, table)


def _score_with_own_model(context: ScoringContext, run: Run, table: DeltaTable) -> RunResult | None:
    """Finish a run of another model, which died before that was replaced, as it was requested.

    A run that cannot be finished is abandoned, and the result None: it must not block every later run.
    """
    try:
        with scoring_instead(context, run.record.request(), _own_bundle(run.record)):
            return _score_run(context, run, table)
    except NothingListed:
        # The run is not at fault, and the command's own run would find nothing either.
        raise
    except InvalidInput as error:
        say(f"run {run.run_id} of {run.record.run_date} is abandoned: {error.text}")
        if run.is_open:
            run.finish("abandoned", exit_code=error.exit_code)
        return None


def _own_bundle(record: RunRecord) -> Bundle:
    """The bundle of a run. Raises InvalidInput where it is not there any more."""
    model_id = record.configuration.model_id
    for folder in (record.bundle, record.model):
        with contextlib.suppress(InvalidInput):
            if folder and (bundle := open_bundle(folder)).model_id == model_id:
                return bundle
    where = printable(record.bundle or record.model)
    raise InvalidInput(f"its model {model_id} is not the one asked for now, and no longer at {where}.")


def _score_run(context: ScoringContext, run: Run, table: DeltaTable) -> RunResult:
    """List, plan, score and commit what the run has not done yet."""
    if not run.resumed and context.options.deadline_s is not None:
        begin_where_last_stood(run)
    view = TableView(table)
    rules = _rules(context, run, view)
    with Planner(run.folder, view, rules) as planner:
        _align_with_table(run, view, planner)
        score_listing(context, run, planner, view)
    gone = _write_gone(run, view, rules)
    if (last := _last_run_alike(context, run, gone)) is not None:
        run.discard()
        return _nothing_new(context, run, last)
    check_inventory(run.folder, run.record.shards)
    result = commit_run(context, run, gone)
    index_squares(context.squares_of(run), run.run_id)
    return result


def _rules(context: ScoringContext, run: Run, view: TableView) -> PlanningRules:
    """Which images are to be scored. Raises InvalidInput where a new model meets a table with rows."""
    request = context.request
    any_model = run.record.any_model
    if any_model is None:
        try:
            any_model = any_model_counts(context.results, request, view)
        except InvalidInput:
            run.discard()
            raise
        remember_rescore(context.results, request)
        run.advance(any_model=any_model, bundle=str(context.bundle.path))
    return PlanningRules(request.model_id, any_model, request.retry_rejected, request.limit)


def _align_with_table(run: Run, view: TableView, planner: Planner) -> None:
    """Plan the run from the present version of the table, without rows that another run committed."""
    record = run.record
    if record.planned_version == view.version and not record.superseded:
        return
    if record.shards:
        run.superseded = planner.superseded(record.shards)
    if run.superseded:
        say(f"{len(run.superseded):,} images were scored by another run in the meantime: unchanged")
    run.advance(planned_version=view.version, superseded=len(run.superseded))


def _write_gone(run: Run, view: TableView, rules: PlanningRules) -> Gone | None:
    """The images that have gone from the archives.

    None where the deadline cut the listing short, and no earlier run has listed the rest: an image that was
    not listed may still be there.
    """
    if (listed := listed_in_round(run)) is None:
        return None
    # A planner of its own: after a deadline, a slow storage may keep the thread of the other at work.
    with Planner(run.folder, view, rules) as planner:
        return planner.write_gone(run.record.configuration.archives, listed)


def _last_run_alike(context: ScoringContext, run: Run, gone: Gone | None) -> RunRecord | None:
    """The last committed run; None where this one has a row to write or another image has gone."""
    if gone is None or not run.record.listing_complete:
        return None
    if any(shard.to_score or shard.deferred for shard in run.record.shards):
        return None
    last = last_committed(context.results, run.record)
    if last is None or (last.gone, last.gone_digest) != (gone.count, gone.digest):
        return None
    return last


def _nothing_new(context: ScoringContext, run: Run, last: RunRecord) -> RunResult:
    """The result of the last committed run, which still holds, with the counts of this one."""
    listed = sum(shard.listed for shard in run.record.shards)
    skipped = run.record.skipped
    say(f"nothing to score: all {listed:,} images are unchanged since run {last.run_id}")
    report_skipped(skipped)
    assert last.result is not None, "a committed run has a result"
    if context.request.date_is_given and last.run_date == context.request.run_date:
        return replace(last.result, nothing_new=True)
    return replace(
        last.result,
        scored=0,
        rejected=0,
        deferred=0,
        listed=listed,
        unchanged=listed,
        reject_reasons={},
        findings={},
        seconds=round(time.monotonic() - context.started, 1),
        images_per_s=0.0,
        # Too many rejected images were reported on the day of that run.
        exit_code=last.result.exit_code if last.run_date == context.request.run_date else 0,
        gates=(),
        drift=None,
        out_of_domain=None if context.bundle.domain is None else 0,
        timings=None,
        skipped=skipped,
        listing_complete=True,
        nothing_new=True,
    )
