"""`pneumonia score --dry-run`: what a run would do; nothing is scored and nothing written."""

from jobs.console.command import Result
from jobs.console.output import say
from jobs.scoring.commit import report_skipped
from jobs.scoring.micro_batches import check_found
from pneumonia_core.archives.lister import Lister
from pneumonia_core.results.table import find_table, open_table
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.registry import any_model_counts
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.system.scratch import ScratchFolder


def dry_run(results: Location, order: RunRequest) -> Result:
    """List the archives and plan as a run would, in a temporary folder. Raises InvalidInput where a run would."""
    with ScratchFolder("dry") as folder:
        table = find_table(results) or open_table(open_location(str(folder / "empty")))
        with Planner(open_location(str(folder)), table, PlanningRules(order.model_id)) as planner:
            any_model = any_model_counts(results, order, planner)
        rules = PlanningRules(order.model_id, any_model, order.retry_rejected, order.limit)
        with (
            Lister(order.archives, order.rules) as lister,
            Planner(open_location(str(folder)), table, rules) as planner,
        ):
            while not lister.wait(60):
                say(f"listed {lister.listed:,} images")
            batches = planner.plan(lister.take(), [], order.chunk_size, relisted=False)
            check_found(order.archives, planner, lister)
            gone, _ = planner.write_gone(order.archives, batches)
            skipped = lister.skip_counts
    counts = {
        name: sum(getattr(batch, name) for batch in batches)
        for name in ("listed", "to_score", "unchanged", "deferred")
    }
    say(
        "would score {to_score:,} of {listed:,} listed: {unchanged:,} unchanged, {deferred:,} deferred".format(
            **counts
        )
    )
    report_skipped(skipped)
    return {"state": "dry run", **counts, "gone": gone, "skipped": skipped}
