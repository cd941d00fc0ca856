"""A table in a bucket is made only where of two writers of one version one wins."""

import boto3
import pytest
from support.buckets import BUCKET, Proxy, s3_server, using

from pneumonia_core.errors import InvalidInput
from pneumonia_core.results.table import find_table, open_table
from pneumonia_core.storage.backend import StoredFile
from pneumonia_core.storage.location import open_location
from pneumonia_core.storage.s3 import objects as s3_objects


@pytest.fixture(scope="module")
def proxy():
    with s3_server() as endpoint, Proxy(endpoint) as proxy, using(proxy.endpoint):
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
        yield proxy


def objects(uri: str) -> list[StoredFile]:
    return [stored for page in s3_objects.list_pages(uri) for stored in page]


@pytest.mark.parametrize("header", [b"If-None-Match", b"If-Match"])
def test_bucket_that_ignores_a_condition_gets_no_table(proxy, header):
    results = open_location(f"s3://{BUCKET}/{header.decode()}")
    proxy.ignored = (header,)
    with pytest.raises(InvalidInput, match="conditional writes"):
        open_table(results)
    proxy.ignored = ()
    assert objects(results.uri) == []
    assert open_table(results).version() == 0
    assert all("_delta_log" in stored.uri for stored in objects(results.uri))
    # A table that is there is not probed again.
    proxy.ignored = (header,)
    assert find_table(results)
