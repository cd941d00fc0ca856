"""How long a night over a folder of its own looks through the records of the nights before, in a bucket.

python tests/bench/read_records.py [--nights 300] [--delay-ms 20]
"""

import dataclasses
import json
import time

import boto3
import click
from support.buckets import BUCKET, Proxy, s3_server, using

from pneumonia_core.runs.record import RunConfiguration, RunRecord
from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.runs.run import run_folder
from pneumonia_core.storage.files import write_bytes
from pneumonia_core.storage.location import Location, open_location

RECORD = RunRecord(
    run_id="",
    run_date="2026-11-01",
    state="committed",
    created_at="2026-11-01T00:00:00+00:00",
    configuration=RunConfiguration(("file:///archive",), "model", "auto", "auto", None, False, None, 256),
    model="/models/m",
    versions={},
    planned_version=0,
)


def write_records(results: Location, nights: int) -> None:
    for night in range(nights):
        record = dataclasses.replace(RECORD, run_id=f"{night:06d}")
        content = json.dumps(record.as_json()).encode()
        write_bytes(run_folder(results, record.run_id).child("run.json"), content)


@click.command()
@click.option("--nights", default=300, show_default=True)
@click.option("--delay-ms", default=20.0, show_default=True, help="Before each answer of the bucket.")
@click.option("--rounds", default=3, show_default=True)
def main(nights: int, delay_ms: float, rounds: int) -> None:
    with s3_server() as server, Proxy(server) as proxy, using(proxy.endpoint):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        results = open_location(f"s3://{BUCKET}/results")
        write_records(results, nights)
        proxy.delay_s = delay_ms / 1000
        for _ in range(rounds):
            started = time.monotonic()
            read = sum(1 for _ in committed_runs(results))
            print(f"{read} records in {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    main()
