"""`pneumonia score --dry-run`: what a run would do. It scores nothing and writes nothing to the results."""

from typing import Any

from jobs.console.output import say
from jobs.scoring.ending.report import report_skipped
from jobs.scoring.planning import check_found
from pneumonia_core.archives.lister import Lister
from pneumonia_core.results.table import find_table, open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import Inventory
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.record import RunRequest
from pneumonia_core.runs.rescore_choice import any_model_counts
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.system.scratch import ScratchFolder


def dry_run(results: Location, request: RunRequest) -> dict[str, Any]:
    """List the archives and plan as a run would, in a temporary folder.

    Raises InvalidInput where a run would raise it.
    """
    with ScratchFolder("dry") as folder:
        view = TableView(find_table(results) or open_table(open_location(str(folder / "empty"))))
        any_model = any_model_counts(results, request, view)
        rules = PlanningRules(request.model_id, any_model, request.retry_rejected, request.limit)
        with (
            Lister(request.archives, request.rules) as lister,
            Planner(open_location(str(folder)), view, rules) as planner,
        ):
            while not lister.wait(60):
                say(f"listed {lister.listed:,} images")
            shards = planner.plan(lister.take(), [], request.chunk_size, relisted=False)
            check_found(request.archives, view, lister)
            gone = planner.write_gone(request.archives, [Inventory(open_location(str(folder)), shards)])
            skipped = lister.skip_counts
    counts = {
        name: sum(getattr(shard, name) for shard in shards)
        for name in ("listed", "to_score", "unchanged", "deferred")
    }
    say(
        f"would score {counts['to_score']:,} of {counts['listed']:,} listed: {counts['unchanged']:,} "
        f"unchanged, {counts['deferred']:,} deferred"
    )
    report_skipped(skipped)
    return {"state": "dry run", **counts, "gone": gone.count, "skipped": skipped}
