"""What earlier runs tell of a run: those over its archives, however far back, and others only without any."""

import dataclasses
from pathlib import Path

import pytest
from support.records import write_committed
from support.scoring import scoring_request

from pneumonia_core.runs.gated.earlier import EarlierRuns, earlier_runs
from pneumonia_core.runs.outcome.counts import Counts
from pneumonia_core.runs.registry import new_run
from pneumonia_core.storage.location import open_location

OWN = (0, 0, 0, 0, 0, 0, 0, 0, 0, 40)
OTHER = (60, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def begun(tmp_path, tiny_bundle):
    """A run that has begun, and a function that writes committed runs before it."""
    results = open_location(str(tmp_path / "r"))
    (tmp_path / "archive").mkdir()
    run = new_run(results, scoring_request(tiny_bundle, tmp_path / "archive"), 999)

    def commit(number: int, histogram, archive: str | None = None, model: str | None = None) -> None:
        wanted = run.record.configuration
        archives = wanted.archives if archive is None else (archive,)
        write_committed(
            results,
            number,
            configuration=dataclasses.replace(wanted, archives=archives, model_id=model or wanted.model_id),
            counts=Counts(listed=100 + number, scored=sum(histogram), score_histogram=histogram),
        )

    yield run, commit
    run.unlock()


def test_runs_over_the_same_archives_count_up_to_thirty(begun):
    run, commit = begun
    assert earlier_runs(run) == EarlierRuns()
    for number in range(40):
        commit(number, OWN)
    assert earlier_runs(run) == EarlierRuns(139, tuple(30 * images for images in OWN))


def test_enough_scores_are_enough(begun):
    run, commit = begun
    large = tuple(250 * images for images in OWN)
    for number in range(5):
        commit(number, large)
    assert earlier_runs(run).scores == large


def test_own_runs_are_found_behind_those_of_many_other_archives(begun):
    run, commit = begun
    commit(0, OWN)
    for number in range(1, 251):
        commit(number, OTHER, archive=f"file:///site/{number}")
    assert earlier_runs(run) == EarlierRuns(100, OWN)


def test_runs_over_other_archives_count_where_none_is_over_these(begun):
    run, commit = begun
    for number in range(40):
        commit(number, OTHER, archive=f"file:///day/{number}")
    assert earlier_runs(run) == EarlierRuns(None, tuple(30 * images for images in OTHER))
    # A run of another model over these archives says that they have runs of their own.
    commit(40, OWN, model="another")
    assert earlier_runs(run) == EarlierRuns(140, ())


def test_record_that_cannot_be_read_makes_volume_and_drift_unknown(begun, caplog):
    run, commit = begun
    for number in range(3):
        commit(number, OTHER, archive=f"file:///day/{number}")
    (Path(run.results.path) / "runs" / "000000-run" / "run.json").write_text("{")
    assert earlier_runs(run) == EarlierRuns()
    assert "volume and drift of this run are unknown" in caplog.text
    assert "run.json is damaged" in caplog.text
