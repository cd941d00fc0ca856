"""Score archives of chest X-rays into the results table: list, plan, score, check, commit."""

import contextlib
import time
from typing import Any

from jobs.console.command import Result
from jobs.console.output import say
from jobs.scoring.commit import commit_run, finish_committed, report_skipped
from jobs.scoring.context import ExecutionOptions, ScoringContext, stopping_on_sigterm
from jobs.scoring.micro_batches import score_listing
from pneumonia_core.errors import InvalidInput
from pneumonia_core.runs.record import Run, RunRequest
from pneumonia_core.runs.registry import any_model_counts, last_committed, open_run, remember_rescore
from pneumonia_core.storage.location import Location


def score_archives(results: Location, order: RunRequest, settings: ExecutionOptions) -> Result:
    """Carry out an order: finish its unfinished run if there is one, then do tonight's.

    Returns the result of the last run as the JSON object that the command prints.
    """
    from pneumonia_core.bundles.bundle import open_bundle

    with contextlib.ExitStack() as session:
        work = ScoringContext(results, order, settings, open_bundle(order.model), session)
        with stopping_on_sigterm(work):
            while True:
                result, run = _score_once(work)
                if not run.answers(order):
                    say(f"recorded the run {run.run_id}, whose rows the table had; now to what was asked")
                    continue
                if not run.resumed or result["run_date"] == order.run_date:
                    return result
                if work.past_deadline:
                    say(
                        f"finished the night of {result['run_date']}; the deadline leaves no time for {order.run_date}"
                    )
                    return result
                say(f"finished the night of {result['run_date']}; now that of {order.run_date}")


def _score_once(work: ScoringContext) -> tuple[Result, Run]:
    """One run from listing to commit, begun before or now. Returns its result with it."""
    from pneumonia_core.results.table import add_carried_columns
    from pneumonia_core.runs.planner import Planner

    table = add_carried_columns(work.results, work.order.rules.carry)
    with open_run(work.results, work.order, table.version(), work.settings.fresh) as run:
        say(f"{'resuming' if run.resumed else 'run'} {run.run_id}, date {run.record['run_date']}")
        if run.resumed and (result := finish_committed(work, run)):
            return result, run
        with Planner(run.folder, table, _rules(work, run, table)) as planner:
            superseded = _align_with_table(run, table, planner)
            score_listing(work, run, planner, superseded)
            if (result := _nothing_new(work, run, planner)) is not None:
                return result, run
            planner.check_inventory(run.batches)
        return commit_run(work, run, superseded), run


def _rules(work: ScoringContext, run: Run, table: Any) -> Any:
    """Which images are to be scored; asks for --rescore where a new model meets a table with rows."""
    from pneumonia_core.runs.planner import Planner, PlanningRules

    order = work.order
    if "any_model" not in run.record:
        rules = PlanningRules(order.model_id)
        try:
            with Planner(run.folder, table, rules) as planner:
                any_model = any_model_counts(work.results, order, planner)
        except InvalidInput:
            run.discard()
            raise
        remember_rescore(work.results, order)
        run.save(any_model=any_model)
    return PlanningRules(order.model_id, run.record["any_model"], order.retry_rejected, order.limit)


def _align_with_table(run: Run, table: Any, planner: Any) -> frozenset[int]:
    """The rows of a resumed run that another run has committed meanwhile; the run is planned anew from
    the table's present version."""
    if run.record["planned_version"] == table.version() and not run.record.get("superseded"):
        return frozenset()
    superseded: frozenset[int] = planner.superseded(run.batches) if run.batches else frozenset()
    if superseded:
        say(f"{len(superseded):,} images were scored by another run meanwhile: unchanged")
    run.save(planned_version=table.version(), superseded=len(superseded))
    return superseded


def _nothing_new(work: ScoringContext, run: Run, planner: Any) -> Result | None:
    """The result where there is no row to write and nothing went: the last committed run stands."""
    if not run.record["listing_complete"]:
        # The deadline came: what was not listed may be new, or gone.
        run.record["gone"] = None
        return None
    gone, digest = planner.write_gone(work.order.archives, run.batches)
    run.record.update(gone=gone, gone_digest=digest)
    if any(batch.to_score or batch.deferred for batch in run.batches):
        return None
    last = last_committed(work.results, run.record["configuration"])
    if last is None or (last.get("gone"), last.get("gone_digest")) != (gone, digest):
        return None
    listed = sum(batch.listed for batch in run.batches)
    run.discard()
    say(f"nothing to score: all {listed:,} images are unchanged since run {last['run_id']}")
    skipped = run.record.get("skipped") or {}
    report_skipped(skipped)
    result = dict(last["result"])
    if not (work.order.date_is_given and last["run_date"] == work.order.run_date):
        result.update(
            scored=0,
            rejected=0,
            deferred=0,
            listed=listed,
            unchanged=listed,
            reject_reasons={},
            findings={},
            seconds=round(time.monotonic() - work.started, 1),
            images_per_s=0.0,
        )
        if last["run_date"] != work.order.run_date:
            # That too many were rejected then was said in that night.
            result["exit_code"] = 0
        result.update(out_of_domain=None if work.bundle.domain is None else 0, skipped=skipped)
    return {**result, "nothing_new": True}
