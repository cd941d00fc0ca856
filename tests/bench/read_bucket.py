"""How fast images of a distant bucket are read and decoded: a moto server behind a proxy that answers late.

python tests/bench/read_bucket.py [--delay-ms 50] [--images 400]
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import boto3
import click
from support.buckets import BUCKET, Proxy, s3_server, using
from support.images.archived import jpeg, request

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.scoring.decoding import decode_ahead, read_and_decode
from pneumonia_core.scoring.prefetch import READERS_PER_CORE


@click.command()
@click.option("--delay-ms", default=50.0, show_default=True)
@click.option("--images", default=400, show_default=True)
@click.option("--threads", default=2, show_default=True, help="Cores that decode.")
def main(delay_ms: float, images: int, threads: int) -> None:
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        for number in range(images):
            client.put_object(Bucket=BUCKET, Key=f"in/{number:05d}.jpeg", Body=jpeg(number % 50, 224))
        listed = list_archive(f"s3://{BUCKET}/in", Counter())
        refs = [request(image) for image in listed]
        proxy.delay_s = delay_ms / 1000
        for readers in (threads, READERS_PER_CORE * threads):
            with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(readers) as reading:
                started = time.monotonic()
                count = sum(1 for _ in decode_ahead(refs, 224, pool, reading, 64, read_and_decode))
            seconds = time.monotonic() - started
            print(f"{readers:3d} readers, {delay_ms:.0f} ms an answer: {count / seconds:6.1f} images/s")


if __name__ == "__main__":
    main()
