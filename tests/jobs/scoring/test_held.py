"""Runs that a gate holds back: nothing is committed, nothing is lost, and a user may accept them."""

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.gated import night
from support.scoring import rows, score, scoring_request

from jobs import latest, maintain, runs
from jobs import score as score_job
from jobs.scoring.ending.acceptance import accept
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy
from pneumonia_core.runs.gated.held import abandon_held_runs
from pneumonia_core.runs.registry import open_run, read_runs
from pneumonia_core.storage.location import open_location
from pneumonia_core.system.failpoints import VARIABLE


def make_archive(folder: Path, images: int = 20) -> Path:
    """A folder of files with the names of images; nobody looks into them here."""
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:02d}.png").write_bytes(b"image")
    return folder


@pytest.fixture(scope="module")
def two_nights(tmp_path_factory, tiny_bundle):
    """A table with the rows of one night, and a second night that is held for images that could not be read.

    The second night found one image changed and six more.
    """
    folder = tmp_path_factory.mktemp("held")
    results, archive = folder / "r", make_archive(folder / "archive")
    request = scoring_request(tiny_bundle, archive)
    night(results, request, tiny_bundle)
    (archive / "00.png").write_bytes(b"changed")
    for number in range(6):
        (archive / f"unreadable-{number}.png").write_bytes(b"image")
    return results, request, night(results, request, tiny_bundle, value=0.25)


@pytest.fixture
def held(two_nights, tmp_path):
    """The two nights: results, request and result of the second; what a test changes is put back."""
    folder = two_nights[0].parent
    kept = shutil.copytree(folder, tmp_path / "kept")
    yield two_nights
    shutil.rmtree(folder)
    # The table knows the images by their paths and by the times of the files, which a copy keeps.
    shutil.copytree(kept, folder)


def state(results: Path, run_id: str) -> str:
    (record,) = [r for r in read_runs(open_location(str(results))) if r.run_id == run_id]
    return record.state


def run(command, *arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_held_run_is_staged_and_says_why(held):
    results, _, result = held
    assert (result["state"], result["exit_code"], result["version"]) == ("held", 4, None)
    (alarm,) = [alarm for alarm in result["gates"] if alarm["action"] == "hold"]
    assert (alarm["gate"], alarm["images"], alarm["of"], alarm["limit"]) == ("read-rejected", 6, 7, 0.05)
    assert alarm["text"] in (results / "runs" / result["run_id"] / "run.html").read_text()
    assert rows(results).num_rows == 20
    assert len(list((results / "scores").rglob("*.parquet"))) == 1
    assert f"{result['run_id']}  2026-01-31  held" in run(runs.command, results).output


def test_accepted_run_is_committed_after_maintenance_without_being_scored_again(held):
    results, _, result = held
    assert run(maintain.command, results, "--compact", "--vacuum", "0s").exit_code == 0
    done = run(score_job.command, "--results", results, "--accept", result["run_id"])
    assert done.exit_code == 0, done.output
    assert rows(results).num_rows == 27
    accepted = accept_again(results, result)
    assert accepted.remedy is Remedy.NAME_HELD_RUN
    assert "committed" in accepted.text
    assert not list((results / "runs" / ".unfinished").iterdir())


def accept_again(results, result) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        accept(str(results), result["run_id"], 1.0)
    return caught.value


def test_accepted_run_puts_no_older_score_over_a_newer_one(held, tiny_bundle, tmp_path):
    results, request, result = held
    archive = results.parent / "archive"
    # The next night is not blocked. It finds one image changed again.
    for number in range(6):
        (archive / f"unreadable-{number}.png").rename(tmp_path / f"{number}.png")
    (archive / "00.png").write_bytes(b"another")
    (archive / "20.png").write_bytes(b"image")
    between = night(results, request, tiny_bundle, value=0.75)
    assert (between["state"], between["scored"], between["exit_code"]) == ("committed", 2, 0)
    accepted = accept(str(results), result["run_id"], 1.0)
    assert (accepted["listed"], accepted["scored"], accepted["rejected"]) == (26, 0, 6)
    assert (accepted["unchanged"], accepted["run_date"]) == (20, result["run_date"])
    run(latest.command, results, "--output", tmp_path / "latest.parquet")
    newest = {
        Path(row["image_uri"]).name: row for row in pq.read_table(tmp_path / "latest.parquet").to_pylist()
    }
    assert newest["00.png"]["p_normal"] == 0.75
    assert sum(row["image_uri"].endswith("/00.png") for row in rows(results).to_pylist()) == 2


@pytest.mark.parametrize("place", ["merge.after", "save.before@staged", "commit.before", "commit.after"])
def test_acceptance_that_is_cut_short_is_repeated(held, place, monkeypatch):
    results, _, result = held
    monkeypatch.setenv(VARIABLE, f"{place}=enospc")
    with pytest.raises(PneumoniaError) as caught:
        accept(str(results), result["run_id"], 1.0)
    said = "rows of the run may be in" if place.startswith("commit") else "Nothing of this run was committed"
    assert said in caught.value.text
    monkeypatch.delenv(VARIABLE)
    accept(str(results), result["run_id"], 1.0)
    assert rows(results).num_rows == 27
    assert state(results, result["run_id"]) == "committed"


def test_run_that_was_killed_just_after_it_was_held_is_not_resumed(held, tiny_bundle, monkeypatch):
    results, request, _ = held
    monkeypatch.setenv(VARIABLE, "save.after@held=enospc")
    with pytest.raises(OSError, match="No space left"):
        night(results, request, tiny_bundle)
    monkeypatch.delenv(VARIABLE)
    assert len(list((results / "runs" / ".unfinished").iterdir())) == 1
    with open_run(open_location(str(results)), request, 1, fresh=False) as following:
        assert not following.resumed
    assert [record.state for record in read_runs(open_location(str(results)))][1:3] == ["held", "held"]


def test_nightly_command_finishes_an_acceptance_that_was_cut_short(held, monkeypatch):
    results, request, result = held
    monkeypatch.setenv(VARIABLE, "commit.before=enospc")
    with pytest.raises(PneumoniaError):
        accept(str(results), result["run_id"], 1.0)
    monkeypatch.delenv(VARIABLE)
    assert run(maintain.command, results, "--compact").exit_code == 1
    for file in (results.parent / "archive").glob("unreadable-*"):
        file.unlink()
    # Nothing is left to score: no cluster is started.
    assert score(results, request)["gone"] == 6
    assert state(results, result["run_id"]) == "committed"
    assert rows(results).num_rows == 27


def test_held_run_whose_parts_have_gone_is_not_accepted(held):
    results, _, result = held
    (part,) = (results / "runs" / result["run_id"] / "parts").iterdir()
    part.unlink()
    with pytest.raises(PneumoniaError, match="its parts have 0 rows"):
        accept(str(results), result["run_id"], 1.0)
    assert state(results, result["run_id"]) == "held"


def test_fresh_abandons_a_held_run_of_the_same_command_alone(held):
    results, request, result = held
    for file in (results.parent / "archive").glob("[!1-9]*"):
        file.unlink()
    # Nothing is left to score: no cluster is started.
    assert not abandon_held_runs(open_location(str(results)), dataclasses.replace(request, limit=100))
    assert state(results, result["run_id"]) == "held"
    score(results, request, fresh=True)
    assert state(results, result["run_id"]) == "abandoned"
    assert "state is abandoned" in accept_again(results, result).text


def test_images_that_went_hold_a_run_of_the_command_until_it_is_accepted(tiny_bundle, tmp_path):
    archive = make_archive(tmp_path / "archive", 40)
    results, request = tmp_path / "r", scoring_request(tiny_bundle, archive)
    night(results, request, tiny_bundle)
    for number in range(20):
        (archive / f"{number:02d}.png").unlink()
    # Nothing is left to score: no cluster is started.
    words = [archive, "--model", tiny_bundle.path, "--results", results, "--engine", "openvino"]
    done = run(score_job.command, *words)
    held = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, held["state"], held["exit_code"], held["version"]) == (4, "held", 4, None)
    alarms = {alarm["gate"]: (alarm["action"], alarm["images"], alarm["of"]) for alarm in held["gates"]}
    assert alarms == {"gone": ("hold", 20, 40), "volume": ("warn", 20, 40)}
    assert "held: 20 of 40 images that the archives had have gone: 50.0%" in done.stderr
    assert f"--accept {held['run_id']}`" in done.stderr
    assert run(score_job.command, "--results", results, "--accept", held["run_id"]).exit_code == 0
    # They went long ago now: the next that go are 5 of 20.
    for number in range(20, 25):
        (archive / f"{number:02d}.png").unlink()
    (tmp_path / "nightly.toml").write_text('gate = ["gone=warn:0.2", "volume=off"]\n')
    after = run(score_job.command, *words, "--config", tmp_path / "nightly.toml")
    result = json.loads(after.stdout.splitlines()[-1])
    assert (after.exit_code, result["state"], result["gone"]) == (0, "committed", 25)
    assert [(alarm["gate"], alarm["images"], alarm["of"]) for alarm in result["gates"]] == [("gone", 5, 20)]
    assert "warning: 5 of 20 images" in after.stderr


def test_run_that_is_not_there_cannot_be_accepted(tmp_path):
    for name in ("absent", "../r", ".unfinished"):
        with pytest.raises(InvalidInput) as caught:
            accept(str(tmp_path), name, 1.0)
        assert caught.value.remedy is Remedy.NAME_HELD_RUN


def test_acceptance_takes_results_alone_and_contradicts_a_dry_run(tmp_path):
    refused = run(score_job.command, "--results", tmp_path, "--accept", "r", "--dry-run")
    assert refused.exit_code == 2
    assert "leave out --dry-run" in refused.output
    for missing in (["archive"], ["--model", "m"]):
        needed = run(score_job.command, *missing, "--results", tmp_path)
        assert needed.exit_code == 2
        assert "Missing" in needed.output


def test_drift_is_measured_against_the_runs_before_and_held_where_asked(tmp_path, tiny_bundle):
    archive, results = make_archive(tmp_path / "archive", 100), tmp_path / "r"
    request = scoring_request(tiny_bundle, archive)

    def add_images(first: int, last: int) -> None:
        for number in range(first, last):
            (archive / f"{number}.png").write_bytes(b"image")

    first = night(results, request, tiny_bundle, ["drift=hold"], value=0.95)
    assert (first["drift"], first["state"]) == (None, "committed")
    add_images(100, 160)
    alike = night(results, request, tiny_bundle, ["drift=hold"], value=0.95)
    assert (alike["state"], alike["gates"]) == ("committed", ())
    assert 0 <= alike["drift"] < 0.1
    add_images(160, 220)
    warned = night(results, request, tiny_bundle, ["drift=warn"], value=0.05)
    (alarm,) = warned["gates"]
    assert (warned["state"], alarm["gate"], alarm["images"], alarm["of"]) == ("committed", "drift", 60, 160)
    assert warned["drift"] > 1
    add_images(220, 280)
    held = night(results, request, tiny_bundle, ["drift=hold"], value=0.45)
    assert (held["state"], held["exit_code"]) == ("held", 4)
    page = (results / "runs" / held["run_id"] / "run.html").read_text()
    assert all(f">{name}</th>" in page for name in ("this run", "runs before", "validation"))
    accepted = accept(str(results), held["run_id"], 1.0)
    assert (accepted["state"], accepted["drift"]) == ("committed", held["drift"])


def test_drift_of_another_folder_each_night_is_measured_against_all_runs_of_the_model(tmp_path, tiny_bundle):
    results = tmp_path / "r"
    nights = []
    for date, value in [("2026-01-30", 0.95), ("2026-01-31", 0.95), ("2026-02-01", 0.05)]:
        request = scoring_request(tiny_bundle, make_archive(tmp_path / date, 100))
        nights.append(night(results, request, tiny_bundle, value=value))
    assert nights[0]["drift"] is None
    assert nights[1]["drift"] < 0.1 < 1 < nights[2]["drift"]
    assert [alarm["gate"] for alarm in nights[2]["gates"]] == ["drift"]
    of_another = scoring_request(tiny_bundle, make_archive(tmp_path / "2026-02-02", 100))
    of_another = dataclasses.replace(of_another, model_id="another")
    assert night(results, of_another, tiny_bundle)["drift"] is None


def test_run_commits_where_what_only_tells_of_drift_cannot_be_read(tmp_path, tiny_bundle, caplog):
    """An old record that is damaged, and a bundle that was deleted while the run was at work."""
    results, archive = tmp_path / "r", make_archive(tmp_path / "archive")
    request = scoring_request(tiny_bundle, archive)
    first = night(results, request, tiny_bundle)
    (archive / "second.png").write_bytes(b"image")
    night(results, request, tiny_bundle)
    (results / "runs" / first["run_id"] / "run.json").write_text("{")
    (archive / "third.png").write_bytes(b"image")
    done = night(results, request, dataclasses.replace(tiny_bundle, path=tmp_path / "deleted"))
    assert (done["state"], done["scored"], done["drift"]) == ("committed", 1, None)
    assert "volume and drift of this run are unknown" in caplog.text
    assert "baseline.parquet cannot be read" in caplog.text


def test_runs_of_another_model_are_not_in_the_way_of_the_comparison(tmp_path, tiny_bundle):
    results, archive = tmp_path / "r", make_archive(tmp_path / "archive")
    request = scoring_request(tiny_bundle, archive)
    own = night(results, request, tiny_bundle)
    record = json.loads((results / "runs" / own["run_id"] / "run.json").read_text())
    record["configuration"]["model_id"] = "another"
    for number in range(35):
        folder = results / "runs" / f"{number + 1:06d}-of-another-model"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({**record, "run_id": folder.name}))
    (archive / "last.png").write_bytes(b"image")
    assert night(results, request, tiny_bundle)["drift"] is not None
