"""Pyarrow's file systems of buckets, with the credentials of this process's environment."""

import contextlib
import datetime
import os
from functools import cache
from typing import Any, Final

import pyarrow.fs as pafs

from pneumonia_core.errors import InvalidInput
from pneumonia_core.storage import s3_client

# An image whose storage fails must have its row within the minute.
_GS_RETRIES: Final = datetime.timedelta(seconds=20)


@cache
def file_system(scheme: str, bucket: str) -> pafs.FileSystem:
    """The file system of a bucket. Raises InvalidInput where the environment lacks what it takes."""
    if scheme == "gs":
        # An emulator asks for no credentials, and there may be none.
        emulated = bool(os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT"))
        return pafs.GcsFileSystem(anonymous=emulated, retry_time_limit=_GS_RETRIES)
    if scheme == "abfs":
        return _azure()
    options: dict[str, Any] = {"retry_strategy": pafs.AwsStandardS3RetryStrategy(max_attempts=8)}
    if url := s3_client.endpoint():
        options["scheme"], _, options["endpoint_override"] = url.rstrip("/").partition("://")
    elif not s3_client.region():
        with contextlib.suppress(OSError):
            options["region"] = pafs.resolve_s3_region(bucket)
    if region := s3_client.region():
        options["region"] = region
    return pafs.S3FileSystem(connect_timeout=5, request_timeout=20, **options)


def _azure() -> pafs.FileSystem:
    """Azure's storage by its usual variables: a connection string, or the account's name, and its key or, without
    one, the identity of this machine."""
    known = dict(
        pair.split("=", 1)
        for pair in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        if "=" in pair
    )
    name = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
    key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
    account = known.get("AccountName") or name
    if not account:
        raise InvalidInput(
            "abfs:// needs the account's name in AZURE_STORAGE_ACCOUNT_NAME, or AZURE_STORAGE_CONNECTION_STRING."
        )
    options: dict[str, Any] = {"account_key": known.get("AccountKey") or key}
    if endpoint := known.get("BlobEndpoint"):
        scheme, _, rest = endpoint.partition("://")
        for service in ("blob", "dfs"):
            options[f"{service}_storage_scheme"] = scheme
            options[f"{service}_storage_authority"] = rest.partition("/")[0]
    return pafs.AzureFileSystem(account, **options)
