"""The variables of S3 as sites set them: each client heeds them, or one line names the variable."""

import os

import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable
from support.buckets import BUCKET, s3_server, using
from support.certificates import private_certificate
from support.http_servers import recorder
from support.table_rows import night

from pneumonia_core.archives.archive import open_archive
from pneumonia_core.errors import InvalidInput, RejectedImage, Remedy
from pneumonia_core.results.latest import NOTHING_GONE, write_latest
from pneumonia_core.results.table import existing_table, open_table, storage_options
from pneumonia_core.storage.arrow import arrow_file_system
from pneumonia_core.storage.errors import CredentialsError
from pneumonia_core.storage.files import read_bytes
from pneumonia_core.storage.location import Location, open_location
from pneumonia_core.storage.ranges import stat_file
from pneumonia_core.storage.s3 import client as s3_client
from pneumonia_core.storage.s3 import objects as s3_objects
from pneumonia_core.storage.s3.answers import not_listed

IMAGE = f"s3://{BUCKET}/x.jpeg"
SCORES = Location(f"s3://{BUCKET}/results/scores")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("url", ["minio:9000", "minio.hospital.example", "//minio:9000", "http://", "s3://b"])
def test_endpoint_that_is_no_url_is_named_by_its_variable(name, url, monkeypatch):
    with using("http://127.0.0.1:1"):
        monkeypatch.setenv(name, url)
        for ask in (
            lambda: open_archive(f"s3://{BUCKET}"),
            lambda: open_table(open_location(f"s3://{BUCKET}/results")),
            lambda: arrow_file_system(IMAGE),
        ):
            with pytest.raises(InvalidInput, match=f"variable {name} is not the URL of a storage.*scheme"):
                ask()


def headers_asked_with() -> list[dict[str, str]]:
    """The headers of requests for an image, a listing and a table."""
    with recorder() as server, using(server.url):
        with pytest.raises(RejectedImage):
            stat_file(IMAGE)
        with pytest.raises(InvalidInput):
            list(s3_objects.list_pages(IMAGE))
        asked_by_us = len(server.headers)
        with pytest.raises(OSError, match="404"):
            DeltaTable(SCORES.uri, storage_options=storage_options(SCORES))
        assert len(server.headers) > asked_by_us
        return [{name.lower(): value for name, value in headers.items()} for headers in server.headers]


@pytest.mark.parametrize("value", ["requester", "true", None])
def test_requester_pays_where_the_variable_says_so(value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("AWS_REQUEST_PAYER", value)
    payers = {headers.get("x-amz-request-payer") for headers in headers_asked_with()}
    assert payers == {"requester" if value else None}


@pytest.mark.parametrize("value", ["true", "1", None])
def test_requests_to_public_buckets_are_not_signed(value, monkeypatch):
    if value is not None:
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", value)
    assert {"authorization" in headers for headers in headers_asked_with()} == {value is None}


def test_no_credentials_at_all_are_told_with_what_to_set(monkeypatch, tmp_path):
    with using("http://127.0.0.1:1"):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            monkeypatch.setenv(name, str(tmp_path / "absent"))
        for ask in (lambda: stat_file(IMAGE), lambda: list(s3_objects.list_pages(IMAGE))):
            with pytest.raises(CredentialsError, match="no credentials of AWS were found") as raised:
                ask()
            assert raised.value.remedy is Remedy.GIVE_CREDENTIALS


def test_bucket_that_refuses_to_be_listed_may_want_a_payer():
    error = not_listed("s3://b", ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectsV2"))
    assert isinstance(error, InvalidInput)
    assert "AWS_REQUEST_PAYER=requester" in error.text


@pytest.mark.parametrize("value", ["true", None])
def test_bucket_is_part_of_the_host_where_the_variable_says_so(value, monkeypatch):
    with using("https://storage.example:9000"):
        if value is not None:
            monkeypatch.setenv("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", value)
        s3_client.forget_client()
        url = s3_client.client().generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "x"})
        options = storage_options(SCORES)
        host = f"{BUCKET}.storage.example:9000" if value else "storage.example:9000"
        assert url.startswith(f"https://{host}/")
        assert options["aws_endpoint_url"] == f"https://{host}"
        assert options["aws_virtual_hosted_style_request"] == ("true" if value else "false")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return private_certificate(tmp_path_factory.mktemp("certificate"))


def test_private_authority_is_trusted_by_every_client(certificate, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with s3_server(certificate) as endpoint, using(endpoint):
        os.environ["AWS_CA_BUNDLE"] = str(certificate.authority)
        s3_client.forget_client()
        s3_client.client().create_bucket(Bucket=BUCKET)
        results = open_location(f"s3://{BUCKET}/results")
        night(results, 1, ("in", "a"), model="one", finding="normal")
        latest = write_latest(
            existing_table(results), NOTHING_GONE, open_location(str(tmp_path / "latest.csv"))
        )
        assert latest.counts.total() == 1
        checkpoints = arrow_file_system(f"s3://{BUCKET}/training")
        with checkpoints.open_output_stream(f"{BUCKET}/training/state") as stream:
            stream.write(b"state")
        assert read_bytes(open_location(f"s3://{BUCKET}/training/state")) == b"state"
