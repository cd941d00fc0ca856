"""The shares of a run that its gates look at, beside those of the run before."""

import itertools
import logging
from collections.abc import Sequence
from typing import Final

from pneumonia_core.drift import Drift, measure_drift
from pneumonia_core.errors import REJECT_REASONS, InvalidInput
from pneumonia_core.gates import MIN_IMAGES, Share
from pneumonia_core.results.latest import read_gone
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView, comparing_with_table
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.runs.run import Run
from pneumonia_core.runs.upkeep import gone_lists
from pneumonia_core.storage.errors import error_text
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.scratch import ScratchFolder

_MEMORY_MB = 192
# The scores of a run are compared with those of so many runs before it, or of fewer that have enough. They
# are looked for in the newest _MAX_READ records.
_MAX_RUNS_BEFORE: Final = 30
_ENOUGH_SCORES: Final = 10_000
_MAX_READ: Final = 200
_log = logging.getLogger(__name__)


def gate_shares(
    run: Run, counts: Counts, gone: int | None, before: Sequence[int] = ()
) -> dict[str, Share | Drift]:
    """The shares of a run with these counts by the names of their gates, without those that are unknown.

    `before` is the histogram of `scores_before`.

    `gone` is the number of images in its gone.parquet, None where the listing cannot tell them. How many
    images are listed says something only where the listing is complete.
    """
    unread = sum(
        number
        for reason, number in counts.reject_reasons.items()
        if reason in REJECT_REASONS and REJECT_REASONS[reason].stage == "read"
    )
    shares: dict[str, Share | Drift] = {
        "rejected": Share(counts.rejected, counts.attempted),
        "read-rejected": Share(unread, counts.attempted),
    }
    if counts.out_of_domain is not None:
        shares["out-of-domain"] = Share(counts.out_of_domain, counts.scored)
    if (drift := measure_drift(counts.score_histogram, before)) is not None:
        shares["drift"] = drift
    if run.record.listing_complete and (listed := _listed_before(run)) is not None:
        shares["volume"] = Share(counts.listed, listed)
    if gone is not None and gone >= MIN_IMAGES and (newly := _newly_gone(run)) is not None:
        shares["gone"] = newly
    return shares


def scores_before(run: Run) -> tuple[int, ...]:
    """A histogram of p_pneumonia in earlier committed runs of the same model, as `Counts` have it.

    The newest _MAX_RUNS_BEFORE runs over the same archives count, or fewer that have scored _ENOUGH_SCORES
    images. Without any, those over other archives count: each night may have a folder of its own. Empty
    without such a run, and where an earlier record cannot be read: a night must not fail by that.
    """
    wanted = run.record.configuration
    alike: list[tuple[int, ...]] = []
    others: list[tuple[int, ...]] = []
    try:
        for record in itertools.islice(committed_runs(run.results), _MAX_READ):
            histogram = record.counts.score_histogram
            if record.configuration.model_id == wanted.model_id and any(histogram):
                (alike if record.configuration.archives == wanted.archives else others).append(histogram)
            if _are_enough(alike):
                break
    except (InvalidInput, OSError) as error:
        why = error.text if isinstance(error, InvalidInput) else error_text(error)
        _log.warning(f"the drift of the scores is unknown, because an earlier run cannot be read: {why}")
        return ()
    counted = alike or others[:_MAX_RUNS_BEFORE]
    return tuple(map(sum, zip(*counted, strict=True)))


def _are_enough(histograms: Sequence[tuple[int, ...]]) -> bool:
    return len(histograms) >= _MAX_RUNS_BEFORE or sum(map(sum, histograms)) >= _ENOUGH_SCORES


def _listed_before(run: Run) -> int | None:
    """How many images the newest committed run over the same archives has listed; None without one."""
    archives = run.record.configuration.archives
    for record in committed_runs(run.results):
        if record.listing_complete and record.configuration.archives == archives:
            return record.counts.listed
    return None


@comparing_with_table()
def _newly_gone(run: Run) -> Share | None:
    """The images that went since each archive's newest run that could tell them, of all it had then.

    None where they are too few for an alarm: the table is then not read.
    """
    archives = run.record.configuration.archives
    lists = gone_lists(run.results, archives)
    earlier = [lists[archive] for archive in archives if archive in lists]
    with ScratchFolder("gone") as spill, open_duckdb(spill, _MEMORY_MB, threads=2) as database:
        database.register("gone", read_gone([run.folder.child("gone.parquet")]))
        database.register("earlier", read_gone(earlier))
        ((newly,),) = database.sql(
            "SELECT count(*) FROM gone ANTI JOIN earlier USING (image_uri, archive)"
        ).fetchall()
        if newly < MIN_IMAGES:
            return None
        database.register("earlier", read_gone(earlier))
        ((before,),) = database.execute(
            "SELECT count(DISTINCT (image_uri, archive)) FROM earlier "
            "WHERE archive IN (SELECT unnest(?::VARCHAR[]))",
            [list(archives)],
        ).fetchall()
    known = TableView(open_table(run.results)).known_images(archives)
    return Share(newly, max(sum(known.values()) - before, newly))
