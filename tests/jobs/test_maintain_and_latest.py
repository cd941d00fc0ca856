"""The table over many nights: the newest row of each live image, compaction, dry runs, clocks that jump."""

import dataclasses
import datetime
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable
from support.scoring import commit_as_scored, rows, score, scoring_request

from jobs import latest, maintain, report, runs
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.runs.inventory import CHUNK_SCHEMA, ChunkRef
from pneumonia_core.runs.parts import write_part
from pneumonia_core.runs.registry import new_run
from pneumonia_core.runs.run import marker, unscored_rows
from pneumonia_core.scoring.chunk import RowConstants
from pneumonia_core.storage.location import open_location


@pytest.fixture(scope="module")
def three_nights(ray_here, tiny_bundle, tmp_path_factory):
    """A folder with three nights over an archive that loses one image, gets one and changes one."""
    folder = tmp_path_factory.mktemp("nights")
    archive = folder / "archive"
    write_archive(archive, 12, seed=1)
    files = files_in(archive)
    for night in range(3):
        if night == 1:
            files[0].unlink()
            files[1].write_bytes(files[2].read_bytes())
        if night == 2:
            files[0].write_bytes(files[3].read_bytes())
        score(folder / "r", scoring_request(tiny_bundle, archive, run_date=f"2026-02-0{night + 1}"))
    return folder


def files_in(archive):
    return sorted(path for path in archive.rglob("*") if path.is_file())


@pytest.fixture
def nights(three_nights, tmp_path):
    """The results and images of the three nights; what a test changes of them is put back."""
    kept = shutil.copytree(three_nights, tmp_path / "kept")
    yield three_nights / "r", files_in(three_nights / "archive")
    shutil.rmtree(three_nights)
    # The table names images by their paths, and knows them by the times of the files, which a copy keeps.
    shutil.copytree(kept, three_nights)


def run(command, *arguments):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


def test_latest_gives_one_row_for_each_image_still_there(nights, tmp_path):
    results, files = nights
    files[4].unlink()
    run(latest.command, results, "--output", tmp_path / "before.parquet")
    before = pq.read_table(tmp_path / "before.parquet")
    assert before.num_rows == 12
    newest = {row["image_uri"]: row["run_date"].day for row in before.to_pylist()}
    assert [newest[f"file://{file}"] for file in files[:3]] == [3, 2, 1]


def test_image_that_went_is_not_in_latest(nights, tiny_bundle, tmp_path):
    results, files = nights
    files[4].unlink()
    score(results, scoring_request(tiny_bundle, results.parent / "archive", run_date="2026-02-04"))
    run(latest.command, results, "--output", tmp_path / "after.csv")
    lines = (tmp_path / "after.csv").read_text().splitlines()
    assert len(lines) == 1 + 11
    assert not any(files[4].name in line for line in lines)


def test_maintain_leaves_the_same_rows_in_fewer_files(nights):
    results, _ = nights
    before = rows(results).sort_by([("image_uri", "ascending"), ("run_date", "ascending")])
    run(maintain.command, results, "--compact", "--vacuum", "0s")
    after = rows(results).sort_by([("image_uri", "ascending"), ("run_date", "ascending")])
    assert after.select(before.column_names).equals(before)
    # One file for each day: a file never spans partitions.
    assert len(DeltaTable(str(results / "scores")).file_uris()) == 3


def test_night_after_maintenance_is_incremental(nights, tiny_bundle):
    results, _ = nights
    run(maintain.command, results, "--compact")
    assert score(results, scoring_request(tiny_bundle, results.parent / "archive"))["nothing_new"]


@pytest.fixture
def table(tmp_path):
    """A night's table, without a cluster."""
    write_archive(tmp_path / "archive", 2, seed=1)
    commit_as_scored(tmp_path / "r", tmp_path / "archive", "m")
    return tmp_path / "r"


def refused(command, *arguments):
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.mark.parametrize(("age", "stays"), [("30m", True), ("0s", False)])
def test_vacuum_deletes_nothing_that_is_younger_than_asked(table, age, stays):
    leftover = table / "scores" / "run_date=2026-01-30" / "dead.parquet"
    leftover.write_bytes(b"")
    run(maintain.command, table, "--vacuum", age)
    assert leftover.exists() == stays
    assert rows(table).num_rows == 2


def test_vacuum_removes_runs_that_died_before_they_were_marked_and_no_others(table, tiny_bundle):
    location, asked = open_location(str(table)), scoring_request(tiny_bundle, table.parent / "archive")
    early, dead, alive = (new_run(location, asked, 1) for _ in range(3))
    for died in (early, dead):
        died.unlock()
    Path(marker(location, early.run_id).path).unlink()
    with alive:
        assert refused(maintain.command, table, "--vacuum", "0s").exit_code == 1
        Path(marker(location, alive.run_id).path).unlink()
        run(maintain.command, table, "--vacuum", "0s")
        left = {path.name for path in (table / "runs").glob("[!.]*")}
        assert left == {dead.run_id, alive.run_id}


def test_part_that_a_worker_of_a_lost_node_writes_after_the_commit_is_removed(table, tiny_bundle):
    location = open_location(str(table))
    with new_run(location, scoring_request(tiny_bundle, table.parent / "archive"), 1) as ended:
        ended.finish("committed")
    write_part(ended.folder, 0, rows(table))
    run(maintain.command, table, "--vacuum", "0s")
    assert not list(table.glob("runs/*/parts"))
    assert rows(table).num_rows == 2


def test_latest_names_a_file_that_another_program_has_removed(table):
    (file,) = (table / "scores").rglob("*.parquet")
    file.unlink()
    done = refused(latest.command, table)
    assert done.exit_code == 1
    assert f"its file {file} is gone" in done.stderr


@pytest.mark.parametrize(
    ("command", "options"), [(latest.command, []), (runs.command, []), (maintain.command, ["--compact"])]
)
def test_results_that_cannot_be_looked_into_are_one_line(command, options):
    done = refused(command, "/" + 300 * "r", *options)
    assert done.exit_code == 1
    assert "could not be read (File name too long)" in done.stderr


def test_latest_says_that_it_cannot_write(table):
    done = refused(latest.command, table, "--output", "/proc/latest.csv")
    assert done.exit_code == 1
    assert "not written to file:///proc/latest.csv" in done.stderr


def test_commit_that_only_its_checkpoint_failed_is_one(ray_here, tiny_bundle, tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    write_archive(archive, 4, seed=1)
    real = DeltaTable.create_write_transaction

    def then_full(self, *arguments, **options):
        real(self, *arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", then_full)
    assert score(tmp_path / "r", scoring_request(tiny_bundle, archive))["version"] == 1
    assert rows(tmp_path / "r").num_rows == 4


def test_rows_that_another_run_has_scored_are_not_left(tmp_path, tiny_bundle):
    run = new_run(open_location(str(tmp_path)), scoring_request(tiny_bundle, tmp_path), 1)
    columns = {name: [""] * 4 for name in ("image_uri", "image_version", "archive")}
    given = {**columns, "row_id": range(4), "attempt": [1] * 4}
    arrays = [pa.array(given.get(field.name, [None] * 4), field.type) for field in CHUNK_SCHEMA]
    pq.write_table(pa.Table.from_arrays(arrays, schema=CHUNK_SCHEMA), f"{run.folder.path}/chunks/c.parquet")
    refs = [ChunkRef(0, "c.parquet", 0, 4)]
    assert unscored_rows(run, refs) == 4
    run.superseded = frozenset({1, 2, 9})
    assert unscored_rows(run, refs) == 2


def test_clock_that_jumped_back_dates_rows_behind_the_newest(tiny_bundle):
    newest = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=400)
    facts = RowConstants("run", "model", "openvino", "float32", tiny_bundle.thresholds, 64)
    assert facts.now() < newest
    assert dataclasses.replace(facts, not_before=newest).now() > newest


def test_latest_is_right_after_the_clock_jumped_back(nights, tiny_bundle):
    results, files = nights
    future = DeltaTable(str(results / "scores")).to_pyarrow_table()["scored_at"].to_pylist()
    files[5].write_bytes(files[6].read_bytes())
    score(results, scoring_request(tiny_bundle, results.parent / "archive", run_date="2020-01-01"))
    table = rows(results)
    changed = [row for row in table.to_pylist() if row["image_uri"] == f"file://{files[5]}"]
    assert max(row["scored_at"] for row in changed) > max(future)


def test_page_of_a_run_is_written_again(nights, tmp_path):
    results, _ = nights
    run_ids = sorted(folder.name for folder in (results / "runs").iterdir() if folder.name[0] != ".")
    pages = [results / "runs" / run_id / "run.html" for run_id in run_ids]
    written = [page.read_text() for page in pages]
    for page in pages:
        page.unlink()
    newest = json.loads(run(report.command, results).stdout)
    assert (newest["run_id"], newest["page"]) == (run_ids[-1], pages[-1].as_uri())
    assert pages[-1].read_text() == written[-1]
    run(report.command, results, "--run", run_ids[0], "--output", tmp_path / "first.html")
    assert (tmp_path / "first.html").read_text() == written[0]
    assert not pages[0].exists()


def test_page_of_a_run_that_has_not_ended_is_written_elsewhere(nights, tiny_bundle, tmp_path):
    results, files = nights
    request = scoring_request(tiny_bundle, files[0].parents[1], run_date="2026-02-09")
    with new_run(open_location(str(results)), request, 3) as begun:
        done = CliRunner().invoke(report.command, [str(results)])
        assert done.exit_code == 2
        assert "Give an --output" in done.output
        assert not (results / "runs" / begun.run_id / "run.html").exists()
        output = tmp_path / "now.html"
        result = json.loads(run(report.command, results, "--output", output).stdout)
        assert (result["run_id"], result["run_state"]) == (begun.run_id, "listing")
        assert begun.run_id in output.read_text()


def test_page_of_no_run_is_an_error_that_says_what_to_do(nights, tmp_path):
    results, _ = nights
    for arguments, said in [
        ((results, "--run", "another"), "Name one that `pneumonia runs` shows."),
        ((tmp_path,), "Give the --results of `pneumonia score`."),
        ((results, "--output", results / "scores" / "_delta_log" / f"{0:020}.json" / "page"), "cannot write"),
    ]:
        done = CliRunner().invoke(report.command, [str(argument) for argument in arguments])
        assert done.exit_code == 2
        assert said in done.output
