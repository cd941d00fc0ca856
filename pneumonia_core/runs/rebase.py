"""The commit of a run, on top of what runs over other images have committed since it was planned."""

from collections.abc import Sequence

from deltalake import DeltaTable

from pneumonia_core.errors import Remedy
from pneumonia_core.results.commit import DataFile, LostRace, commit, committed_version
from pneumonia_core.results.table import existing_table, table_at
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.run import Run


def commit_rebased(run: Run, planned_version: int, files: Sequence[DataFile]) -> int:
    """Add the files of a staged run to the table, which was at this version when their rows were planned.

    Returns the new version. Raises LostRace where another run has committed some of the same images since,
    LeaseLost where another process may own the run, otherwise as `commit`.
    """
    version = planned_version
    while True:
        run.check_lock()
        try:
            return commit(run.results, version, run.run_id, run.record.run_date, files)
        except LostRace:
            # A process that has taken the run over may have committed it.
            if (own := committed_version(run.results, run.run_id, version)) is not None:
                return own
            table = existing_table(run.results)
            _check_disjoint(run, planned_version, table)
            version = table.version()


def _check_disjoint(run: Run, planned_version: int, table: DeltaTable) -> None:
    """Raise LostRace where the table has got rows of the same images since this version."""
    asked = run.record.configuration
    rules = PlanningRules(asked.model_id, bool(run.record.any_model), asked.retry_rejected, asked.limit)
    view = TableView(table, since=table_at(run.results, planned_version))
    with Planner(run.folder, view, rules) as planner:
        if same := planner.superseded(run.record.shards) - run.superseded:
            raise LostRace(
                f"another run has committed {len(same):,} of the same images in between. Nothing of this run "
                "was committed; what it scored is kept.",
                Remedy.RUN_AGAIN,
            )
