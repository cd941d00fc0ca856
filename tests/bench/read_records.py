"""How long a night over a folder of its own looks through the records of the nights before, in a bucket.

python tests/bench/read_records.py [--nights 300] [--delay-ms 20]
"""

import time

import boto3
import click
from support.buckets import BUCKET, Proxy, s3_server, using
from support.records import write_committed

from pneumonia_core.runs.registry import committed_runs
from pneumonia_core.storage.location import open_location


@click.command()
@click.option("--nights", default=300, show_default=True)
@click.option("--delay-ms", default=20.0, show_default=True, help="Before each answer of the bucket.")
@click.option("--rounds", default=3, show_default=True)
def main(nights: int, delay_ms: float, rounds: int) -> None:
    with s3_server() as server, Proxy(server) as proxy, using(proxy.endpoint):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        results = open_location(f"s3://{BUCKET}/results")
        for night in range(nights):
            write_committed(results, night)
        proxy.delay_s = delay_ms / 1000
        for _ in range(rounds):
            started = time.monotonic()
            read = sum(1 for _ in committed_runs(results))
            print(f"{read} records in {time.monotonic() - started:.2f} s")


if __name__ == "__main__":
    main()
