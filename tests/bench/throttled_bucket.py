"""What ten seconds of 503 SlowDown cost: images of a moto server behind a proxy that refuses all of them.

python tests/bench/throttled_bucket.py [--seconds 10] [--images 400]
"""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import boto3
import click
from support.buckets import BUCKET, SLOW_DOWN, Proxy, s3_server, using
from support.images.archived import jpeg, request

from pneumonia_core.archives.archive import list_archive
from pneumonia_core.scoring.decoding import decode_ahead, read_and_decode


@click.command()
@click.option("--seconds", default=10.0, show_default=True, help="How long the bucket refuses.")
@click.option("--images", default=400, show_default=True)
@click.option("--readers", default=128, show_default=True)
def main(seconds: float, images: int, readers: int) -> None:
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        for number in range(images):
            client.put_object(Bucket=BUCKET, Key=f"in/{number:05d}.jpeg", Body=jpeg(number % 50, 224))
        refs = [request(image) for image in list_archive(f"s3://{BUCKET}/in", Counter())]
        proxy.fail("GET .*jpeg", refusal=SLOW_DOWN)
        recovery = threading.Timer(seconds, proxy.fail, [None])
        recovery.start()
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(readers) as reading:
            decoded = list(decode_ahead(refs, 224, pool, reading, readers, read_and_decode))
        rejected = sum(image.rejection is not None for image in decoded)
        print(
            f"{images} images, {seconds:.0f} s of 503: {rejected} rejected, {proxy.injected} refusals, "
            f"{time.monotonic() - started:.0f} s"
        )
        recovery.join()


if __name__ == "__main__":
    main()
