"""Which run a command resumes, where several are unfinished or two commands meet. No cluster is started."""

import dataclasses
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.scoring import commit_as_scored, score, scoring_request

from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.errors import InvalidInput
from pneumonia_core.phantoms.data_sets import write_archive
from pneumonia_core.results.commit import DataFile, commit
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.registry import (
    RunAtWork,
    active_runs,
    last_committed,
    new_run,
    open_run,
    read_runs,
)
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.files import exists, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.locks.lock import take_lock

COUNTS = Counts(listed=3, scored=3, bytes_read=1)


@pytest.fixture
def archives(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for seed, folder in enumerate(folders):
        write_archive(folder, 3, seed=seed)
    return folders


@pytest.fixture
def results(tmp_path, archives, tiny_bundle):
    """A table that has every image of the first archive."""
    commit_as_scored(tmp_path / "results", archives[0], tiny_bundle.model_id)
    return open_location(str(tmp_path / "results"))


def died(results, request, state=None, **changes):
    """The run of a command that was killed."""
    run = new_run(results, request, 1)
    run.advance(state, **changes)
    run.unlock()
    return run


def test_each_command_finds_its_own_of_several_unfinished_runs(results, archives, tiny_bundle):
    requests = [scoring_request(tiny_bundle, archive) for archive in archives]
    runs = [died(results, request) for request in requests]
    with (
        open_run(results, requests[0], 1, fresh=False) as first,
        open_run(results, requests[1], 1, fresh=False) as second,
    ):
        assert [first.run_id, second.run_id] == [run.run_id for run in runs]
        assert len(active_runs(results)) == 2
    assert active_runs(results) == []


def test_run_with_other_options_is_refused_and_left_unlocked(results, archives, tiny_bundle):
    run = died(results, scoring_request(tiny_bundle, archives[0]))
    with pytest.raises(InvalidInput, match=run.run_id):
        open_run(results, scoring_request(tiny_bundle, archives[0], limit=1), 1, fresh=False)
    held = take_lock(run.folder)
    assert held
    held.release()


@pytest.mark.parametrize("fresh", [False, True])
def test_dead_run_of_other_archives_is_neither_in_the_way_nor_touched(results, archives, tiny_bundle, fresh):
    dead = died(results, scoring_request(tiny_bundle, archives[0]))
    (part := Path(dead.folder.child("parts").child("00000000.parquet").path)).write_bytes(b"")
    before = dead.record
    with open_run(results, scoring_request(tiny_bundle, archives[1]), 1, fresh) as other:
        assert not other.resumed
        other.finish("committed")
    assert part.exists()
    with open_run(results, scoring_request(tiny_bundle, archives[0]), 1, fresh=False) as resumed:
        assert (resumed.run_id, resumed.record) == (dead.run_id, before)


def test_command_beside_its_living_run_says_who_is_at_work(results, archives, tiny_bundle):
    request = scoring_request(tiny_bundle, archives[0])
    with open_run(results, request, 1, fresh=False) as run:
        for fresh in (False, True):
            with pytest.raises(RunAtWork, match=rf"{run.run_id} .* process {os.getpid()} on .* since 2"):
                open_run(results, request, 1, fresh)
        assert [record.run_id for record in read_runs(results)] == [run.run_id]
        # Another model may score the same archives at the same time.
        with open_run(
            results, scoring_request(tiny_bundle, archives[0], model_id="0" * 16), 1, False
        ) as other:
            assert not other.resumed
            other.discard()
    with open_run(results, request, 1, fresh=False) as resumed:
        assert resumed.run_id == run.run_id


def test_of_commands_that_begin_at_one_moment_one_begins_a_run(results, archives, tiny_bundle):
    request = scoring_request(tiny_bundle, archives[0])

    def begin(_: int) -> Run | None:
        try:
            return open_run(results, request, 1, fresh=False)
        except RunAtWork:
            return None

    with ThreadPoolExecutor(4) as pool:
        begun = [run for run in pool.map(begin, range(4)) if run]
    assert len(begun) == len(read_runs(results)) == 1
    begun[0].unlock()


def test_run_that_died_between_its_last_record_and_its_marker_is_not_active(results, archives, tiny_bundle):
    died(results, scoring_request(tiny_bundle, archives[0]), "committed")
    assert active_runs(results) == []


@pytest.fixture
def models(tiny_bundle, tmp_path):
    """Two bundles, and an alias of the newer one."""
    folder = tmp_path / "models"
    for name, model_id in (("old", tiny_bundle.model_id), ("new", "1" * 16)):
        shutil.copytree(tiny_bundle.path, folder / name)
        document = json.loads((folder / name / "bundle.json").read_text())
        (folder / name / "bundle.json").write_text(json.dumps({**document, "model_id": model_id}))
    (folder / "production").symlink_to(folder / "new")
    return folder


@pytest.mark.parametrize("old_bundle_is_there", [True, False])
def test_dead_run_of_a_model_that_was_replaced_is_finished_or_abandoned(
    results, archives, tmp_path, models, capsys, old_bundle_is_there
):
    """A killed night, then a promotion: the next night is the new model's, whatever comes of the other."""
    old, new = (
        scoring_request(open_bundle(models / name), archives[0], model=str(models / "production"))
        for name in ("old", "new")
    )
    dead = died(results, old, bundle=str(models / "old"))
    if not old_bundle_is_there:
        shutil.rmtree(models / "old")
    result = score(tmp_path / "results", dataclasses.replace(new, rescore="none"))
    assert (result["model_id"], result["unchanged"], result["exit_code"]) == (new.model_id, 3, 0)
    first, second = read_runs(results)
    assert (first.run_id, first.configuration.model_id) == (dead.run_id, old.model_id)
    assert first.state == ("committed" if old_bundle_is_there else "abandoned")
    assert second.bundle == str(models / "new")
    assert ("is abandoned: its model" in capsys.readouterr().err) != old_bundle_is_there
    assert active_runs(results) == []


def test_dead_run_of_a_model_that_was_replaced_is_kept_while_its_archive_is_not_mounted(
    results, archives, tmp_path, models
):
    old, new = (scoring_request(open_bundle(models / name), archives[0]) for name in ("old", "new"))
    dead = died(results, old, bundle=str(models / "old"))
    write_bytes(dead.folder.child("parts").child("00000000.parquet"), b"what it has scored")
    archives[0].rename(tmp_path / "elsewhere")
    archives[0].mkdir()
    with pytest.raises(InvalidInput, match="no images found"):
        score(tmp_path / "results", dataclasses.replace(new, rescore="none"))
    (record,) = read_runs(results)
    assert (record.run_id, record.state) == (dead.run_id, "listing")
    assert exists(dead.folder.child("parts").child("00000000.parquet"))


def test_fresh_records_a_committed_run_of_another_order_and_then_does_its_own(
    results, archives, tiny_bundle, tmp_path
):
    """A run killed between its commit and its last record is not abandoned, nor taken for this request's."""
    other = died(
        results, scoring_request(tiny_bundle, archives[0], model_id="0" * 16), "staged", counts=COUNTS
    )
    file = next((tmp_path / "results" / "scores").rglob("*.parquet"))
    name = str(file.relative_to(tmp_path / "results" / "scores"))
    commit(results, 1, other.run_id, "2026-01-31", [DataFile(name, file.stat().st_size, 3, {}, 0)])
    result = score(tmp_path / "results", scoring_request(tiny_bundle, archives[0]), fresh=True)
    assert result["run_id"] != other.run_id
    assert (result["listed"], result["unchanged"]) == (3, 3)
    (record,) = [record for record in read_runs(results) if record.run_id == other.run_id]
    assert (record.state, record.result.model_id) == ("committed", "0" * 16)


@pytest.mark.parametrize("end", [Run.discard, lambda run: run.finish("committed")])
def test_run_that_ends_while_another_command_reaches_for_it_is_not_resumed(
    results, archives, tiny_bundle, monkeypatch, end
):
    request = scoring_request(tiny_bundle, archives[0])
    run = new_run(results, request, 1)

    open_file = os.open

    def end_first(path, *arguments):
        if str(path) == run.folder.child("lock").path:
            monkeypatch.undo()
            with run:
                end(run)
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", end_first)
    with open_run(results, request, 1, fresh=False) as opened:
        assert not opened.resumed
        assert opened.run_id != run.run_id
    assert not exists(run.folder.child("lock"))


def test_run_that_waited_to_begin_does_not_score_what_another_has_committed_meanwhile(
    results, archives, tiny_bundle, tmp_path, monkeypatch
):
    """It is planned from the table as it is when nobody else can begin the same run any more."""
    open_file = os.open

    def commit_first(path, *arguments):
        if Path(path).parent.name == ".registry":
            monkeypatch.undo()
            commit_as_scored(tmp_path / "results", archives[1], tiny_bundle.model_id)
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", commit_first)
    result = score(tmp_path / "results", scoring_request(tiny_bundle, archives[1]))
    assert (result["listed"], result["unchanged"]) == (3, 3)
    (record,) = read_runs(results)
    assert (record.state, record.planned_version) == ("committed", 2)


def test_rollback_that_finds_nothing_to_score_is_not_alike_the_run_before_the_promotion(
    results, archives, tiny_bundle
):
    """Its record tells `latest` which model is in use."""
    old = scoring_request(tiny_bundle, archives[0])
    new = dataclasses.replace(old, model_id="promoted")
    with new_run(results, old, 1) as first:
        first.finish("committed")
    assert last_committed(results, first.record) == first.record
    with new_run(results, scoring_request(tiny_bundle, archives[1], model_id="promoted"), 2) as other:
        other.finish("committed")
    assert last_committed(results, first.record) == first.record
    with new_run(results, new, 2) as promoted:
        promoted.finish("committed")
    assert last_committed(results, first.record) is None
