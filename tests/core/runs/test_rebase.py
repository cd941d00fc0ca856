"""Runs that commit while another one works: other images do not hinder it, the same images do."""

import pytest
from support.scoring import commit_as_scored, rows, scoring_request, write_as_scored

from jobs.scoring.ending.merging import Merge
from pneumonia_core.archives.lister import Lister
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.commit import LostRace
from pneumonia_core.results.maintenance import compact
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.inventory import read_chunk
from pneumonia_core.runs.parts import PART_SCHEMA, write_part
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.rebase import commit_rebased
from pneumonia_core.runs.registry import new_run
from pneumonia_core.storage.location import open_location

IMAGES = 3


@pytest.fixture
def results(tmp_path):
    """A table with rows of an archive, and archives for other runs."""
    for seed, name in enumerate(("before", "ours", "theirs")):
        write_archive(tmp_path / name, IMAGES, seed=seed)
    commit_as_scored(tmp_path / "r", tmp_path / "before", "m")
    return tmp_path / "r"


@pytest.fixture
def run(results, tiny_bundle):
    """A run that has planned its images from version 1 of the table."""
    request = scoring_request(tiny_bundle, results.parent / "ours", model_id="m")
    location = open_location(str(results))
    with new_run(location, request, 1) as run:
        view = TableView(open_table(location))
        with (
            Lister(request.archives, request.rules) as lister,
            Planner(run.folder, view, PlanningRules("m")) as planner,
        ):
            while not lister.wait(10):
                pass
            shards = planner.plan(lister.take(), [], 16, relisted=False)
        run.advance("staged", shards=tuple(shards), any_model=False)
        yield run


def ours(results, run):
    return [write_as_scored(results, results.parent / "ours", "m", run.run_id)]


def test_run_is_appended_on_top_of_runs_over_other_images(results, run):
    files = ours(results, run)
    for night in ("2026-01-28", "2026-01-29"):
        commit_as_scored(results, results.parent / "theirs", "m", night)
    # Another model may have scored the same images. Joined files hold rows of every run.
    commit_as_scored(results, results.parent / "ours", "another", "2026-01-29")
    compact(open_table(open_location(str(results))))
    assert commit_rebased(run, 1, files) == 6
    assert rows(results)["run_id"].to_pylist().count(run.run_id) == IMAGES
    assert rows(results).num_rows == 5 * IMAGES


def test_run_of_images_that_another_has_committed_commits_nothing(results, run):
    files = ours(results, run)
    commit_as_scored(results, results.parent / "ours", "m")
    with pytest.raises(LostRace, match=f"{IMAGES} of the same images"):
        commit_rebased(run, 1, files)
    assert rows(results).num_rows == 2 * IMAGES


def test_run_that_its_heir_has_committed_is_not_committed_again(results, run):
    files = ours(results, run)
    assert commit_rebased(run, 1, files) == 2
    commit_as_scored(results, results.parent / "theirs", "m")
    late = [write_as_scored(results, results.parent / "ours", "m", f"{run.run_id}-late")]
    assert commit_rebased(run, 1, late) == 2
    assert rows(results).num_rows == 3 * IMAGES


def test_merge_that_comes_late_leaves_the_committed_file_as_it_is(results, run):
    (ref,) = (ref for shard in run.record.shards for ref in shard.chunk_refs())
    given = read_chunk(run.folder, ref)
    facts = {"status": "rejected", "engine": "e", "model_id": "m", "run_id": run.run_id}
    listed = given.select([name for name in given.column_names if name in PART_SCHEMA.names]).to_pylist()
    now = rows(results)["scored_at"][0].as_py()
    part = [{**dict.fromkeys(PART_SCHEMA.names), "scored_at": now, **row, **facts} for row in listed]
    write_part(run.folder, 0, type(given).from_pylist(part, schema=PART_SCHEMA))
    merge = Merge(run.folder, run.results.child("scores"), "run_date=2026-01-31/a", [ref], frozenset())
    committed, late = merge.carry_out(), merge.carry_out()
    assert committed.file.path != late.file.path
    assert commit_rebased(run, 1, [committed.file]) == 2
    assert rows(results).num_rows == 2 * IMAGES
