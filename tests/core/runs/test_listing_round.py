"""Nights that each end before the listing does: together they list all, score all, and know what has gone."""

import datetime
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.images.archived import jpeg
from support.scoring import scoring_request

from pneumonia_core.archives import lister as listers
from pneumonia_core.archives.lister import Lister
from pneumonia_core.results.commit import commit
from pneumonia_core.results.table import open_table, scan
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import read_chunk
from pneumonia_core.runs.listing_round import begin_where_last_stood, leave_listing, listed_in_round
from pneumonia_core.runs.parts import PART_SCHEMA, merge_parts, write_part
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.record import RunRecord, RunRequest
from pneumonia_core.runs.registry import new_run
from pneumonia_core.runs.run import Run, read_record, run_folder
from pneumonia_core.runs.upkeep import write_latest
from pneumonia_core.storage.files import delete_file, delete_folder, write_bytes
from pneumonia_core.storage.location import Location, open_location

SEGMENT = 5
CHUNK = 4


@dataclass
class Nights:
    """A results folder, and what is asked for every night."""

    results: Location
    request: RunRequest

    def pass_one(self, segments: int, chunks: int = 10**9) -> RunRecord:
        """A night whose deadline comes after so many segments are planned and so many chunks are scored."""
        table = open_table(self.results)
        with new_run(self.results, self.request, table.version()) as run:
            begin_where_last_stood(run)
            rules = PlanningRules(self.request.model_id, limit=self.request.limit)
            with (
                Lister(self.request.archives, after=run.record.listed_from) as lister,
                Planner(run.folder, TableView(table), rules) as planner,
            ):
                assert lister.wait(60)
                listed = lister.take()
                reached = listed[:segments]
                assert lister.segments_until_end is not None
                until_end = lister.segments_until_end
                shards = planner.plan(reached[:until_end], [], CHUNK, relisted=False)
                end = len(shards) if len(reached) >= until_end else None
                shards += planner.plan(reached[until_end:], shards, CHUNK, relisted=False)
                run.advance(
                    shards=tuple(shards),
                    shards_until_end=end,
                    listing_complete=len(reached) == len(listed),
                )
                self._score(run, chunks)
                if not run.record.listing_complete:
                    leave_listing(run)
                known = listed_in_round(run)
                gone = None if known is None else planner.write_gone(self.request.archives, known)
            run.finish("committed", gone=None if gone is None else gone.count)
        return read_record(run.folder)

    def _score(self, run: Run, chunks: int) -> None:
        refs = [ref for shard in run.record.shards for ref in shard.chunk_refs()][:chunks]
        facts = {"status": "scored", "engine": "e", "model_id": self.request.model_id, "run_id": run.run_id}
        facts["scored_at"] = datetime.datetime.now(datetime.UTC)
        for ref in refs:
            part = [{**row, **facts} for row in read_chunk(run.folder, ref).to_pylist()]
            every = [{name: row.get(name) for name in PART_SCHEMA.names} for row in part]
            write_part(run.folder, ref.chunk, pa.Table.from_pylist(every, PART_SCHEMA))
        if refs:
            path = f"run_date=2026-11-01/{run.run_id}.parquet"
            merged = merge_parts(run.folder, self.results.child("scores"), path, refs)
            commit(self.results, run.record.planned_version, run.run_id, "2026-11-01", [merged.file])

    @property
    def scored(self) -> int:
        """How many images have a row."""
        return len(set(scan(open_table(self.results)).to_table(["image_uri"])["image_uri"].to_pylist()))


@pytest.fixture
def nights(tmp_path, tiny_bundle, monkeypatch):
    """Nights over two folders of 30 and 20 images, listed in pieces of five."""
    monkeypatch.setattr(listers, "SEGMENT_ROWS", SEGMENT)
    for name, count in (("one", 30), ("two", 20)):
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number:02}.jpeg").write_bytes(jpeg(number))
    request = scoring_request(tiny_bundle, tmp_path / "one", tmp_path / "two")
    return Nights(open_location(str(tmp_path / "r")), request)


def gone_of(nights, record) -> list[str]:
    folder = run_folder(nights.results, record.run_id)
    names = pq.read_table(folder.child("gone.parquet").path)["image_uri"].to_pylist()
    return sorted(name.removeprefix(nights.results.parent.uri + "/") for name in names)


def test_every_night_begins_where_the_last_one_stood_until_all_are_scored(nights):
    scored = []
    for _ in range(5):
        record = nights.pass_one(segments=2)
        scored.append(nights.scored)
    assert scored == [10, 20, 30, 40, 50]
    assert (record.listing_complete, record.gone) == (False, 0)
    # The next one begins at the start again.
    assert nights.pass_one(segments=2).shards[0].unchanged == 10


def test_what_was_listed_too_late_to_be_scored_comes_first_the_next_night(nights):
    scored = []
    while nights.scored < 50:
        nights.pass_one(segments=3, chunks=2)
        scored.append(nights.scored)
    assert scored == [8, 16, 24, 32, 40, 48, 50]


def test_images_that_a_limit_has_left_come_first_the_next_night(nights):
    nights.request = replace(nights.request, limit=7)
    scored = []
    while nights.scored < 50:
        nights.pass_one(segments=3)
        scored.append(nights.scored)
    assert scored == [7, 14, 21, 28, 35, 42, 49, 50]


def test_images_that_went_are_known_within_two_rounds_and_no_others_are_called_gone(nights):
    archives = nights.results.parent
    nights.pass_one(segments=100)
    assert [nights.pass_one(segments=2).gone for _ in range(2)] == [None, None]
    for name in ("one/03.jpeg", "two/19.jpeg"):
        delete_file(open_location(f"{archives.uri}/{name}"))
    first_round = [nights.pass_one(segments=2) for _ in range(3)]
    assert [record.gone for record in first_round] == [None, None, 1]
    assert gone_of(nights, first_round[-1]) == ["two/19.jpeg"]
    second_round = [nights.pass_one(segments=2) for _ in range(5)]
    # The first of these nights finds that nothing follows, and begins again.
    assert [record.gone for record in second_round] == [1, None, None, None, 2]
    assert gone_of(nights, second_round[-1]) == ["one/03.jpeg", "two/19.jpeg"]
    assert write_latest(nights.results, None).counts.total() == 0
    written = nights.results.child("latest.parquet")

    def live() -> int:
        write_latest(nights.results, written)
        return pq.read_metadata(written.path).num_rows

    assert live() == 48
    write_bytes(open_location(f"{archives.uri}/one/03.jpeg"), jpeg(3))
    nights.pass_one(segments=0)
    assert live() == 48
    # The next round is not over, but the image has been listed again.
    nights.pass_one(segments=2)
    assert live() == 49


def test_night_that_gets_beyond_the_end_begins_the_next_round(nights):
    nights.pass_one(segments=8)
    record = nights.pass_one(segments=4)
    assert (record.begun_anew, record.listing_complete, record.gone) == (True, False, 0)
    assert record.listed_to is not None
    assert record.listed_to.image.endswith("one/09.jpeg")
    following = nights.pass_one(segments=2)
    assert following.listed_before == (record.run_id,)
    assert following.gone is None
    # A night that gets around once has seen all by itself.
    record = nights.pass_one(segments=100)
    assert (record.listing_complete, record.gone) == (True, 0)
    assert sum(shard.listed for shard in record.shards) == 50


def test_night_that_must_go_back_before_the_end_is_not_a_round_of_its_own(nights):
    """Otherwise all images of the nights before it would be called gone."""
    nights.pass_one(segments=8)
    record = nights.pass_one(segments=4, chunks=1)
    assert (record.shards_until_end, record.begun_anew, record.gone) == (1, False, 0)
    record = nights.pass_one(segments=4)
    assert (record.begun_anew, len(record.listed_before), record.gone) == (True, 2, 0)


def test_round_whose_inventories_have_been_deleted_calls_nothing_gone(nights):
    record = nights.pass_one(segments=8)
    delete_folder(run_folder(nights.results, record.run_id).child("inventory"))
    record = nights.pass_one(segments=4)
    assert (record.shards_until_end, record.gone) == (1, None)


def test_night_that_lists_nothing_leaves_the_place_as_it_is(nights):
    first = nights.pass_one(segments=2)
    place = first.listed_to
    assert nights.pass_one(segments=0).listed_to == place
    assert nights.pass_one(segments=2, chunks=0).listed_to == place
    record = nights.pass_one(segments=100)
    assert (record.listed_from, record.listing_complete, nights.scored) == (place, True, 50)
    assert record.listed_before == (first.run_id,), "nights that got no further do not belong to the round"
    assert nights.pass_one(segments=2).listed_from is None
