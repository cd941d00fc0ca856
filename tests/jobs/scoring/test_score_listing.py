"""Listing and scoring at the same time: the waits for the listing, and a listing that finds nothing.

No test starts a cluster: none of these runs has an image to score.
"""

import contextlib
import dataclasses
import json
import shutil

import pytest
from support.scoring import commit_as_scored, score, scoring_request

from jobs.scoring.context import ExecutionOptions, ScoringContext
from jobs.scoring.dry_run import dry_run
from jobs.scoring.options import ScoreOptions
from jobs.scoring.planning import LONGEST_LISTING_WAIT_S, PlanningThread, listing_wait_s
from jobs.scoring.request import make_request
from jobs.scoring.run import score_archives
from jobs.scoring.score_listing import score_listing
from pneumonia_core.archives.lister import Lister
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.errors import InvalidInput, Remedy
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.table import open_table
from pneumonia_core.results.table_view import TableView
from pneumonia_core.runs.parts import PART_SCHEMA, write_part
from pneumonia_core.runs.planner import Planner, PlanningRules
from pneumonia_core.runs.registry import open_run
from pneumonia_core.runs.run import marker, read_record, run_folder
from pneumonia_core.storage.files import exists, list_names
from pneumonia_core.storage.location import open_location


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    write_archive(folder, 3, seed=1)
    return folder


@pytest.fixture
def results(tmp_path, archive, tiny_bundle):
    """A table that has every image of the archive."""
    commit_as_scored(tmp_path / "results", archive, tiny_bundle.model_id)
    return tmp_path / "results"


@pytest.fixture(params=["run", "dry run"])
def night(request, results):
    """Scores, or only plans: both refuse the same requests."""
    if request.param == "run":
        return lambda scoring: score(results, scoring)
    return lambda scoring: dry_run(open_location(str(results)), scoring)


@pytest.mark.parametrize(
    ("left_s", "longest_s"), [(None, LONGEST_LISTING_WAIT_S), (120, 120), (20, 20), (2, 2), (-5, 0)]
)
def test_waits_for_the_listing_grow_but_not_beyond_the_deadline(tmp_path, tiny_bundle, left_s, longest_s):
    options = ExecutionOptions(deadline_s=None if left_s is None else 100 + left_s)
    with contextlib.ExitStack() as session:
        context = ScoringContext(
            open_location(str(tmp_path)), scoring_request(tiny_bundle), options, tiny_bundle, session
        )
        context.started -= 100
        waits = [listing_wait_s(context, number) for number in range(200)]
    # Towards a deadline, each wait is a quarter of what is left.
    longest_s = longest_s if left_s is None else min(max(longest_s / 4, 5), longest_s)
    expected = [min(5 * 2 ** min(number, 6), longest_s) for number in range(200)]
    assert waits == pytest.approx(expected, abs=1)


def test_nothing_is_planned_after_the_deadline(archive, results, tiny_bundle):
    """Each plan reads the table, and its images are left to the next run."""
    location, request = open_location(str(results)), scoring_request(tiny_bundle, archive)
    view = TableView(open_table(location))
    with contextlib.ExitStack() as stack:
        context = ScoringContext(location, request, ExecutionOptions(deadline_s=0), tiny_bundle, stack)
        run = stack.enter_context(open_run(location, request, view.version, fresh=False))
        planner = stack.enter_context(Planner(run.folder, view, PlanningRules(request.model_id)))
        lister = stack.enter_context(Lister(request.archives))
        assert lister.wait(60)
        planning = stack.enter_context(PlanningThread(context, run, planner, lister))
        assert planning.take(1) is None
        assert not list_names(run.folder.child("inventory"))


def emptied(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def test_archive_that_lists_nothing_of_what_the_table_knows_is_refused(archive, results, tiny_bundle, night):
    emptied(archive)
    with pytest.raises(InvalidInput, match=f"no images found in file://{archive}, of which the table has 3"):
        night(scoring_request(tiny_bundle, archive))
    assert not list((results / "runs").glob("[!.]*")), "a run is left behind"
    assert not list((results / "runs").glob(".unfinished/*"))


def test_of_several_archives_the_empty_one_is_named(archive, results, tiny_bundle, night, tmp_path):
    other = tmp_path / "other"
    write_archive(other, 2, seed=2)
    commit_as_scored(results, other, tiny_bundle.model_id)
    emptied(other)
    with pytest.raises(InvalidInput) as caught:
        night(scoring_request(tiny_bundle, archive, other))
    assert f"{other}, of which the table has 2" in str(caught.value)
    assert str(archive) not in str(caught.value)


def test_archive_without_images_is_refused_and_says_what_was_skipped(tmp_path, results, tiny_bundle, night):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(InvalidInput, match=r"no images found in .*empty \(skipped: 1 no image\)"):
        night(scoring_request(tiny_bundle, tmp_path / "empty"))


def test_archive_that_was_empty_before_does_not_hold_up_another(archive, tiny_bundle, night, tmp_path):
    (tmp_path / "new").mkdir()
    assert night(scoring_request(tiny_bundle, archive, tmp_path / "new"))["unchanged"] == 3


def test_archive_whose_images_all_come_from_an_earlier_one_is_not_empty(
    archive, results, tiny_bundle, night, tmp_path
):
    table = tmp_path / "archive.csv"
    images = sorted(str(path) for path in archive.rglob("*.jpeg"))
    table.write_text("\n".join(["uri", *images]))
    assert night(scoring_request(tiny_bundle, archive, table))["unchanged"] == 3


def test_new_model_without_rescore_is_refused(archive, tiny_bundle, night):
    with pytest.raises(InvalidInput) as caught:
        night(scoring_request(tiny_bundle, archive, model_id="0" * 16))
    assert caught.value.remedy is Remedy.SAY_RESCORE


def test_dry_run_goes_by_rescore(archive, results, tiny_bundle):
    location = open_location(str(results))
    for rescore, to_score in (("all", 3), ("none", 0)):
        request = scoring_request(tiny_bundle, archive, model_id="0" * 16, rescore=rescore)
        assert dry_run(location, request)["to_score"] == to_score


def test_what_was_skipped_is_in_the_result_and_told(archive, results, tiny_bundle, night, capsys):
    (archive / ".hidden").write_text("")
    (archive / "cut.zip").write_bytes(b"PK\x03\x04")
    expected = {"truncated_archive": 1, "hidden": 1}
    result = night(scoring_request(tiny_bundle, archive))
    assert result["skipped"] == expected
    lines = capsys.readouterr().err.splitlines()
    (warning,) = [line for line in lines if line.startswith("warning:")]
    assert "1 archive that is cut short" in warning
    assert "hidden" not in warning
    assert "skipped: 1 hidden" in lines
    if "run_id" in result:
        assert "archive that is cut short" in (results / "runs" / result["run_id"] / "run.html").read_text()


def test_night_with_nothing_new_tells_what_was_skipped_too(archive, results, tiny_bundle, capsys):
    assert score(results, scoring_request(tiny_bundle, archive))["skipped"] == {}
    (archive / "cut.zip").write_bytes(b"PK\x03\x04")
    again = score(results, scoring_request(tiny_bundle, archive))
    assert again["nothing_new"]
    assert again["skipped"] == {"truncated_archive": 1}
    assert "images may be missing" in capsys.readouterr().err


def test_night_with_nothing_new_does_not_fail_for_the_rejects_of_an_earlier_one(
    archive, results, tiny_bundle
):
    request = scoring_request(tiny_bundle, archive)
    run = results / "runs" / score(results, request)["run_id"] / "run.json"
    record = json.loads(run.read_text())
    record["result"]["exit_code"] = 3
    run.write_text(json.dumps(record))
    again, next_night = (
        score(results, dataclasses.replace(request, run_date=date)) for date in ("2026-01-31", "2026-02-01")
    )
    assert (again["exit_code"], next_night["exit_code"]) == (3, 0)
    assert again["nothing_new"]
    assert next_night["nothing_new"]


@pytest.mark.parametrize("scored", [True, False])
def test_refused_run_is_kept_where_some_of_it_is_scored(archive, results, tiny_bundle, scored):
    """The same command resumes it when the storage is back."""
    emptied(archive)
    location, request = open_location(str(results)), scoring_request(tiny_bundle, archive)
    table = open_table(location)
    with contextlib.ExitStack() as session, open_run(location, request, table.version(), fresh=False) as run:
        context = ScoringContext(location, request, ExecutionOptions(), tiny_bundle, session)
        if scored:
            write_part(run.folder, 0, PART_SCHEMA.empty_table())
        view = TableView(table)
        with Planner(run.folder, view, PlanningRules("m")) as planner, pytest.raises(InvalidInput):
            score_listing(context, run, planner, view)
    assert exists(run.folder.child("run.json")) == scored
    assert exists(marker(location, run.run_id)) == scored


def test_alias_that_is_moved_after_the_start_changes_nothing(archive, results, tiny_bundle, tmp_path):
    """What is planned by one bundle would be scored by the other."""
    other = shutil.copytree(tiny_bundle.path, tmp_path / "other")
    document = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**document, "model_id": "0" * 16}))
    alias = tmp_path / "production"
    alias.symlink_to(tiny_bundle.path)
    bundle = open_bundle(alias)
    request = make_request(ScoreOptions((str(archive),), str(alias)), bundle)
    alias.unlink()
    alias.symlink_to(other)
    # Otherwise the run would be nothing new, and leave no record.
    next(archive.rglob("*.jpeg")).unlink()
    location = open_location(str(results))
    result = score_archives(location, request, bundle, ExecutionOptions())
    record = read_record(run_folder(location, result.run_id))
    assert (result.model_id, record.bundle) == (tiny_bundle.model_id, str(tiny_bundle.path.resolve()))
