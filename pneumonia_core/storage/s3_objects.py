"""Requests to S3: list page by page, read by range with retries, write and delete in one request.

boto3 rather than pyarrow: it lists a prefix of any size in constant memory, gives every key as it is (with
newlines, `%`, `?`, empty path segments), says which error occurred, and can write on a condition.
"""

import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final, NoReturn

from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage import s3_client
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile
from pneumonia_core.storage.errors import (
    BEYOND_THE_END,
    CONDITION_FAILED,
    BucketError,
    CredentialsError,
    as_own_object_error,
    error_code,
    not_listed,
    reject,
    request_failed,
)
from pneumonia_core.storage.s3_client import LIMITS

_PIECE: Final = 2**18
_BAD_SIGNATURE: Final = "SignatureDoesNotMatch"


@dataclass(frozen=True)
class AgedObject:
    """An object's bytes and version, and how old it is by the bucket's own clock."""

    data: bytes
    version: str
    age_s: float


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and raw key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def stat(uri: str) -> StoredFile:
    """Size and version (ETag) of an object. Raises RejectedImage, or CredentialsError."""
    bucket, key = split_uri(uri)
    try:
        answer = s3_client.client().head_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError, ValueError) as error:
        reject(error)
    return StoredFile(uri, answer["ContentLength"], answer["ETag"].strip('"'))


def get(uri: str, offset: int, count: int, version: str | None = None) -> bytes:
    """Up to `count` bytes of an object from `offset` on; of this `version` only, where it is given.

    Raises RejectedImage, for more than 512 MiB before they are received, or CredentialsError.
    """
    return _received(uri, offset, offset + count, version, MAX_SOURCE_BYTES)[0] if count else b""


def get_whole(uri: str) -> bytes:
    """All bytes of one of the program's own objects.

    Raises FileNotFoundError, another OSError, or CredentialsError.
    """
    try:
        return _received(uri)[0]
    except RejectedImage as rejected:
        raise as_own_object_error(uri, rejected) from None


def get_aged(uri: str) -> AgedObject | None:
    """A small object with its age, or None where there is none. Raises OSError."""
    try:
        data, answer = _received(uri)
    except RejectedImage as rejected:
        if rejected.reason == "not_found":
            return None
        raise as_own_object_error(uri, rejected) from None
    except CredentialsError as error:
        raise BucketError(f"{uri} could not be read: {error}") from error
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.datetime.now(datetime.UTC)
    return AgedObject(data, answer["ETag"].strip('"'), (now - answer["LastModified"]).total_seconds())


def _received(
    uri: str, start: int = 0, end: int | None = None, version: str | None = None, most: int | None = None
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an object from `start` to before `end`, and the last answer.

    After an answer that breaks off, the rest is requested again. Raises RejectedImage, or CredentialsError.
    """
    # Here, because urllib3 comes with boto3, which only S3 needs.
    from urllib3.exceptions import HTTPError

    bucket, key = split_uri(uri)
    deadline = time.monotonic() + LIMITS.give_up_after_s
    received = bytearray()
    answer: dict[str, Any] = {}
    condition = {"IfMatch": f'"{version}"'} if version else {}
    pause_s = LIMITS.backoff_s
    while end is None or start + len(received) < end:
        answered = False
        try:
            answer = s3_client.client().get_object(
                Bucket=bucket, Key=key, **_range(start + len(received), end), **condition
            )
            # boto3 repeats a request that failed, but not one whose answer broke off.
            answered = True
            condition = {"IfMatch": answer["ETag"]}
            _receive(answer, received, most)
            break
        except (ClientError, BotoCoreError, HTTPError, OSError, ValueError) as error:
            if error_code(error) in BEYOND_THE_END:
                break
            if not answered or time.monotonic() > deadline:
                _reject(bucket, error)
            time.sleep(pause_s)
            pause_s *= 2
    return bytes(received), answer


def _reject(bucket: str, error: Exception) -> NoReturn:
    """Raise what an error means for an image: RejectedImage, or CredentialsError."""
    if error_code(error) == _BAD_SIGNATURE and _accepts_signature(bucket):
        raise RejectedImage("unreadable", "the storage rejects the signature for this name only") from None
    reject(error)


def _accepts_signature(bucket: str) -> bool:
    """Whether the storage accepts the signature of a request without a key.

    Some S3 gateways rewrite keys such as `a//b` before they check the signature. That rejects one image, not
    the run.
    """
    try:
        s3_client.client().list_objects_v2(Bucket=bucket, MaxKeys=1)
    except (ClientError, BotoCoreError) as error:
        return error_code(error) != _BAD_SIGNATURE
    return True


def _range(start: int, end: int | None) -> dict[str, str]:
    if end is None:
        return {"Range": f"bytes={start}-"} if start else {}
    return {"Range": f"bytes={start}-{end - 1}"}


def _receive(answer: dict[str, Any], received: bytearray, most: int | None) -> None:
    """Append the body of an answer, piece by piece as it comes: a full piece might never come."""
    deadline = time.monotonic() + LIMITS.give_up_after_s
    # A server that sends in chunks does not announce the number of bytes.
    before, expected = len(received), answer.get("ContentLength", 0)
    with answer["Body"] as raw:
        if most is not None and expected > most:
            raise RejectedImage("too_large", f"more bytes than the limit of {most}")
        while piece := raw.read1(_PIECE):
            received += piece
            if time.monotonic() > deadline + (len(received) - before) / LIMITS.least_bytes_per_s:
                raise RejectedImage("timeout", f"the storage sent no more than {len(received)} bytes in time")
    if len(received) - before < expected:
        raise IncompleteReadError(actual_bytes=len(received) - before, expected_bytes=expected)


def list_pages(uri: str) -> Iterator[list[StoredFile]]:
    """All objects whose keys begin with that of the URI, in the order of their keys, by the thousand.

    Raises PneumoniaError where the bucket cannot be listed.
    """
    bucket, prefix = split_uri(uri)
    pages = s3_client.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        for page in pages:
            yield [
                StoredFile(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", ())
            ]
    except (ClientError, BotoCoreError) as error:
        raise not_listed(bucket, error) from error


def list_folder(uri: str) -> list[str]:
    """The names of objects and folders directly in a folder. Raises PneumoniaError."""
    bucket, key = split_uri(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    pages = (
        s3_client.client()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    )
    try:
        return [
            name.removeprefix(prefix).rstrip("/")
            for page in pages
            for name in (
                *(entry["Key"] for entry in page.get("Contents", ())),
                *(entry["Prefix"] for entry in page.get("CommonPrefixes", ())),
            )
            if name != prefix
        ]
    except (ClientError, BotoCoreError) as error:
        raise not_listed(bucket, error) from error


def put(uri: str, data: bytes, only_if: str | None = None) -> str | None:
    """Write an object by one request and return its new version.

    With `only_if`, a version or "" for no object, returns None where the object is at another. Raises
    OSError.
    """
    bucket, key = split_uri(uri)
    condition = {}
    if only_if is not None:
        condition = {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"}
    try:
        answer = s3_client.client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
    except (ClientError, BotoCoreError) as error:
        if only_if is not None and error_code(error) in CONDITION_FAILED:
            return None
        raise request_failed(f"the bucket did not take {uri}", error_code(error)) from error
    return str(answer["ETag"]).strip('"')


def delete(uris: list[str]) -> None:
    """Delete objects, up to a thousand; they may be gone already. Raises OSError."""
    bucket, _ = split_uri(uris[0])
    try:
        if len(uris) == 1:
            s3_client.client().delete_object(Bucket=bucket, Key=split_uri(uris[0])[1])
        else:
            keys = [{"Key": split_uri(uri)[1]} for uri in uris]
            answer = s3_client.client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
            _check_all_deleted(bucket, answer.get("Errors", []))
    except (ClientError, BotoCoreError) as error:
        raise request_failed(f"the bucket did not delete {uris[0]}", error_code(error)) from error


def _check_all_deleted(bucket: str, kept: list[dict[str, str]]) -> None:
    """Raise OSError where S3 reports objects that it kept."""
    if kept:
        what = f"the bucket did not delete s3://{bucket}/{kept[0]['Key']}"
        raise request_failed(what, kept[0].get("Code", "unknown"))


@cache
def check_bucket(bucket: str) -> None:
    """Raise OSError where there is no such bucket, or this process may not use it."""
    try:
        s3_client.client().head_bucket(Bucket=bucket)
    except (ClientError, BotoCoreError, ValueError) as error:
        raise OSError(f"the bucket {bucket} cannot be used ({error_code(error)})") from error
