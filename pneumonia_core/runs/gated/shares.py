"""The shares of a run that its gates look at, beside those of the run before."""

from pneumonia_core.drift import measure_drift
from pneumonia_core.errors import REJECT_REASONS
from pneumonia_core.gates import MIN_IMAGES, Drift, Share
from pneumonia_core.results.latest import read_gone
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView, comparing_with_table
from pneumonia_core.runs.gated.earlier import EarlierRuns
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.run import Run
from pneumonia_core.runs.upkeep import gone_lists
from pneumonia_core.system.bounded_duckdb import open_duckdb
from pneumonia_core.system.scratch import ScratchFolder

_MEMORY_MB = 192


def gate_shares(run: Run, counts: Counts, gone: int | None, earlier: EarlierRuns) -> dict[str, Share | Drift]:
    """The shares of a run with these counts by the names of their gates, without those that are unknown.

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
    if (drift := measure_drift(counts.score_histogram, earlier.scores)) is not None:
        shares["drift"] = drift
    if run.record.listing_complete and earlier.listed is not None:
        shares["volume"] = Share(counts.listed, earlier.listed)
    if gone is not None and gone >= MIN_IMAGES and (newly := _newly_gone(run)) is not None:
        shares["gone"] = newly
    return shares


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
