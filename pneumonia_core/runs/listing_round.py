"""A listing that takes longer than a night: each run begins where the one before it stood.

Runs whose listings follow each other from the first archive's beginning to the last one's end are a round.
Each image that is in its archive all the time is listed by one of them. So the last one knows which have
gone.
"""

import pyarrow.compute as pc

from pneumonia_core.archives.position import ListingPosition
from pneumonia_core.runs.inventory import Inventory, InventoryShard, read_chunk, read_inventory
from pneumonia_core.runs.parts import done_chunks
from pneumonia_core.runs.record import RunRecord
from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.runs.run import Run, chunks_still_needed, read_record, run_folder
from pneumonia_core.storage.files import exists
from pneumonia_core.storage.location import Location


def begin_where_last_stood(run: Run) -> None:
    """Let a new run list on from where the listing of the last one over its archives was left."""
    last = _last_run(run)
    if last is None or last.listing_complete or last.listed_to is None:
        return
    if last.begun_anew:
        before: tuple[str, ...] = (last.run_id,)
    elif last.listed_to == last.listed_from:
        # It got no further. However many nights do, the record of the next one does not grow.
        before = last.listed_before
    else:
        before = (*last.listed_before, last.run_id)
    run.advance(listed_from=last.listed_to, listed_before=before)


def _last_run(run: Run) -> RunRecord | None:
    """The newest committed run over the same archives, by the same rules."""
    wanted = run.record.configuration
    for record in committed_runs(run.results):
        found = record.configuration
        if (found.archives, found.allow_prefix) == (wanted.archives, wanted.allow_prefix):
            return record
    return None


def leave_listing(run: Run) -> None:
    """Record how far a listing got that a deadline has cut short, for the next run to begin there.

    That is before the first image that is listed and not scored, else after the last one.
    """
    shards, until_end = run.record.shards, run.record.shards_until_end
    row = min(_first_unscored(run), _first_deferred(run)) - 1
    if row < 0:
        run.advance(listed_to=run.record.listed_from)
        return
    number = 0
    while row >= shards[number].listed:
        row -= shards[number].listed
        number += 1
    # A resumed run has listed twice. It does not know which of its last images come before the end.
    begun_anew = until_end is not None and number >= until_end and not run.resumed
    run.advance(listed_to=_place(run.folder, shards[number], row), begun_anew=begun_anew)


def _first_unscored(run: Run) -> int:
    """The first row of a chunk that has no part, else the number of rows."""
    done = done_chunks(run.folder)
    left = [ref for ref in chunks_still_needed(run) if ref.chunk not in done]
    if not left:
        return sum(shard.listed for shard in run.record.shards)
    first: int = read_chunk(run.folder, left[0])["row_id"][0].as_py()
    return first


def _first_deferred(run: Run) -> int:
    """The first row that a limit has left to a later run, else the number of rows."""
    before = 0
    for shard in run.record.shards:
        if shard.deferred:
            for batch in read_inventory(run.folder, [shard], "row_id", "disposition"):
                deferred = batch.filter(pc.equal(batch["disposition"], "deferred"))
                if deferred.num_rows:
                    return int(deferred["row_id"][0].as_py())
        before += shard.listed
    return before


def _place(folder: Location, shard: InventoryShard, row: int) -> ListingPosition:
    """The place after a row of a shard, counted from 0."""
    for batch in read_inventory(folder, [shard], "archive", "image_uri"):
        if row < batch.num_rows:
            return ListingPosition(batch["archive"][row].as_py(), batch["image_uri"][row].as_py())
        row -= batch.num_rows
    raise AssertionError("a shard has as many rows as it says")


def listed_in_round(run: Run) -> list[Inventory] | None:
    """The inventories that together have every image of the archives; None where some are still to be listed.

    Also None where the inventory of an earlier run has been deleted.
    """
    record = run.record
    own = Inventory(run.folder, record.shards)
    if record.listing_complete:
        return [own]
    if record.shards_until_end is None:
        return None
    earlier = [_inventory(run.results, run_id) for run_id in record.listed_before]
    known = [inventory for inventory in earlier if inventory is not None]
    return [*known, own] if len(known) == len(earlier) else None


def _inventory(results: Location, run_id: str) -> Inventory | None:
    folder = run_folder(results, run_id)
    if not exists(folder.child("run.json")):
        return None
    inventory = Inventory(folder, read_record(folder).shards)
    return inventory if is_kept(inventory) else None


def is_kept(inventory: Inventory) -> bool:
    """Whether no file of an inventory has been deleted."""
    folder = inventory.run_folder.child("inventory")
    return all(exists(folder.child(shard.file)) for shard in inventory.shards)
