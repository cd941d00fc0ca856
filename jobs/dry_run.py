"""`pneumonia score --dry-run`: what a run would do; nothing is scored and nothing written."""

from jobs.conclude import any_model_counts, tell_skipped
from jobs.config import Result
from jobs.progress import say
from jobs.run import Order
from jobs.waves import check_found
from pneumonia_core.listing import Lister
from pneumonia_core.places import Place, open_place
from pneumonia_core.planning import Planner, PlanningRules
from pneumonia_core.results import find_table, open_table
from pneumonia_core.scratch import ScratchFolder


def dry_run(results: Place, order: Order) -> Result:
    """List the archives and plan as a run would, in a temporary folder. Raises InvalidInput where a run would."""
    with ScratchFolder("dry") as folder:
        table = find_table(results) or open_table(open_place(str(folder / "empty")))
        with Planner(open_place(str(folder)), table, PlanningRules(order.model_id)) as planner:
            any_model = any_model_counts(results, order, planner)
        rules = PlanningRules(order.model_id, any_model, order.retry_rejected, order.limit)
        with (
            Lister(order.archives, order.rules) as lister,
            Planner(open_place(str(folder)), table, rules) as planner,
        ):
            while not lister.wait(60):
                say(f"listed {lister.listed:,} images")
            batches = planner.plan(lister.take(), [], order.chunk_size, relisted=False)
            check_found(order.archives, planner, lister)
            gone, _ = planner.write_gone(order.archives, batches)
            skipped = dict(lister.skipped)
    counts = {
        name: sum(getattr(batch, name) for batch in batches)
        for name in ("listed", "to_score", "unchanged", "deferred")
    }
    say(
        "would score {to_score:,} of {listed:,} listed: {unchanged:,} unchanged, {deferred:,} deferred".format(
            **counts
        )
    )
    tell_skipped(skipped)
    return {"state": "dry run", **counts, "gone": gone, "skipped": skipped}
