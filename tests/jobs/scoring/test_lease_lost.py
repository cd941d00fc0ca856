"""Runs in a bucket whose lease is lost, or outlives its owner."""

import contextlib
import dataclasses

import boto3
import pytest
from support.buckets import BUCKET, s3_server, using
from support.scoring import scoring_request

from jobs.scoring.context import ExecutionOptions, ScoringContext
from jobs.scoring.ending.commit import conclude
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.results.commit import DataFile
from pneumonia_core.results.table import open_table
from pneumonia_core.runs.rebase import commit_rebased
from pneumonia_core.runs.record import RunRecord
from pneumonia_core.runs.registry import new_run, open_run, read_runs
from pneumonia_core.runs.run import Run
from pneumonia_core.storage.files import delete_folder, write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.locks.lease import TIMING, LeaseLost, LeaseTiming
from pneumonia_core.storage.locks.lock import take_lock
from pneumonia_core.storage.locks.owner import Owner


@pytest.fixture
def results():
    with s3_server() as endpoint, using(endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        location = open_location(f"s3://{BUCKET}/leased")
        yield location
        delete_folder(location)


@pytest.mark.parametrize("version", [7, None])
def test_lease_lost_after_the_commit_does_not_say_that_nothing_was_committed(results, tiny_bundle, version):
    timing = LeaseTiming()
    held = take_lock(results, timing)
    request = scoring_request(tiny_bundle)
    record = RunRecord("1", "2026-01-31", "staged", "", request.configuration(), "", {}, 6)
    with contextlib.ExitStack() as session, Run(results, record, held) as run:
        context = ScoringContext(results, request, ExecutionOptions(), tiny_bundle, session)
        write_bytes(results.child("lock"), Owner.of_process(1).as_json())
        timing.expires_after_s = -1.0
        with pytest.raises(PneumoniaError) as caught:
            conclude(context, run, version)
    assert caught.value.remedy is Remedy.WRITE_RECORD
    assert "lease was not renewed" in str(caught.value)
    assert "othing was committed" not in str(caught.value)
    assert ("version 7 of the table has the rows" in str(caught.value)) == (version == 7)


def test_run_whose_lease_another_process_has_taken_commits_nothing(results, tiny_bundle):
    table = open_table(results)
    timing = LeaseTiming()
    with new_run(results, scoring_request(tiny_bundle), 0) as late:
        lease = take_lock(results, timing)
        write_bytes(results.child("lock"), Owner.of_process(1).as_json())
        timing.expires_after_s = -1.0
        write_bytes(results.child("scores").child("a.parquet"), b"12")
        with pytest.raises(LeaseLost):
            commit_rebased(Run(results, late.record, lease), 0, [DataFile("a.parquet", 2, 1, {}, 0)])
        assert open_table(results).version() == table.version() == 0


def test_run_of_a_machine_that_died_is_resumed_when_its_lease_has_expired(results, tiny_bundle, monkeypatch):
    request = scoring_request(tiny_bundle)
    with new_run(results, request, 0) as dead:
        pass
    elsewhere = dataclasses.replace(Owner.of_process(1), boot="another machine")
    write_bytes(dead.folder.child("lock"), elsewhere.as_json())
    monkeypatch.setattr(TIMING, "expires_after_s", 1.5)
    assert take_lock(dead.folder) is None
    with open_run(results, request, 0, fresh=False) as resumed:
        assert (resumed.run_id, resumed.resumed) == (dead.run_id, True)
    assert [record.run_id for record in read_runs(results)] == [dead.run_id]
