"""The records of many nights in a bucket: the newest is read alone, all of them many at a time."""

import itertools
from dataclasses import replace

import boto3
import pytest
from support.buckets import BUCKET, Proxy, s3_server, using
from support.records import CONFIGURATION, write_committed

from pneumonia_core.runs.registry import committed_runs, last_committed, read_runs
from pneumonia_core.runs.run import run_folder
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.traffic import traffic_of


@pytest.fixture(scope="module")
def proxy():
    with s3_server() as server, Proxy(server) as proxy, using(proxy.endpoint):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield proxy


def results_of(nights: int) -> tuple:
    """Results with committed runs over another folder each night; and the newest of them."""
    results = open_location(f"s3://{BUCKET}/{nights}-nights")
    for night in range(nights):
        archives = (f"file:///archive/{night}",)
        newest = write_committed(results, night, configuration=replace(CONFIGURATION, archives=archives))
    # A run that died before it wrote a record.
    write_bytes(run_folder(results, "999999-died").child("inventory").child("shard"), b"")
    return results, newest


@pytest.mark.parametrize("nights", [4, 40])
def test_newest_run_costs_the_same_after_many_nights(proxy, nights):
    results, newest = results_of(nights)
    traffic = traffic_of(f"s3://{BUCKET}")
    before = traffic.succeeded
    assert last_committed(results, newest).run_id == newest.run_id
    # The listing, and up to two records beside the one that is missing.
    assert traffic.succeeded - before <= 3


def test_all_runs_are_read_once_and_many_at_a_time(proxy):
    results, _ = results_of(60)
    traffic = traffic_of(f"s3://{BUCKET}")
    before, proxy.most_at_once, proxy.delay_s = traffic.succeeded, 0, 0.05
    try:
        run_ids = [record.run_id for record in committed_runs(results)]
    finally:
        proxy.delay_s = 0.0
    assert run_ids == [f"{night:06d}-run" for night in reversed(range(60))]
    assert traffic.succeeded - before == 61
    assert proxy.most_at_once >= 8
    assert [record.run_id for record in read_runs(results)] == run_ids[::-1]
    assert [record.run_id for record in itertools.islice(committed_runs(results), 3)] == run_ids[:3]
