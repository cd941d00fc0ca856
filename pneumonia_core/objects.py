"""Objects in S3: listed by pages, read by range with retries, written and deleted each by one request.

boto3 and not pyarrow: it lists a prefix of any size in constant memory, gives every key as it is (with newlines, `%`,
`?`, empty path segments), names what went wrong, and can write on a condition.
"""

import datetime
import io
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NoReturn

from pneumonia_core import s3_client
from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage

# With the client's own attempts well below the minute after which the worker of an image would be given up.
_GIVE_UP_AFTER_S: Final = 15.0
# Slower than this, and not for a moment, no radiograph comes: a bucket may send a byte every other second for ever.
_LEAST_BYTES_PER_S: Final = 2**17
_PIECE: Final = 2**18
_LARGEST_OBJECT: Final = 5 * 2**40
REWRITTEN: Final = "the file was rewritten since it was listed"

_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED: Final = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "InvalidObjectState"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
    }
)


@dataclass(frozen=True)
class StoredObject:
    """An object as the bucket lists it; `version` is its ETag."""

    uri: str
    size_bytes: int
    version: str


class BucketError(OSError):
    """The storage fails: what it holds may be whole."""


class CredentialsError(PneumoniaError):
    """The storage takes our credentials no more: no image is to blame, and the run can be resumed."""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and raw key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def head(uri: str) -> StoredObject:
    """Size and version of an object. Raises RejectedImage, or CredentialsError."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = split_uri(uri)
    try:
        answer = s3_client.client().head_object(Bucket=bucket, Key=key)
    except (ClientError, BotoCoreError, ValueError) as error:
        _reject(error)
    return StoredObject(uri, answer["ContentLength"], answer["ETag"].strip('"'))


def get(uri: str, offset: int, count: int, version: str | None = None) -> bytes:
    """Up to `count` bytes of an object from `offset` on, of this `version` alone where one is given. What breaks off on
    the way is asked for again from there. Raises RejectedImage, or CredentialsError."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    bucket, key = split_uri(uri)
    deadline = time.monotonic() + _GIVE_UP_AFTER_S
    received = bytearray()
    condition = {"IfMatch": f'"{version}"'} if version else {}
    pause_s = s3_client.BACKOFF_S
    while len(received) < count:
        start = offset + len(received)
        answered = False
        try:
            answer = s3_client.client().get_object(
                Bucket=bucket, Key=key, Range=f"bytes={start}-{offset + count - 1}", **condition
            )
            # A request is tried again by boto3; an answer that breaks off is not.
            answered = True
            condition = {"IfMatch": answer["ETag"]}
            _receive(answer, received)
            break
        except (ClientError, BotoCoreError, HTTPError, OSError, ValueError) as error:
            if _code(error) in ("416", "InvalidRange"):
                break
            if not answered or time.monotonic() > deadline:
                _reject(error)
            time.sleep(pause_s)
            pause_s *= 2
    return bytes(received)


def _receive(answer: dict[str, Any], received: bytearray) -> None:
    """Add what an answer holds, piece by piece as it comes: to wait for a full piece could last for ever."""
    from botocore.exceptions import IncompleteReadError

    deadline = time.monotonic() + _GIVE_UP_AFTER_S
    before, expected = len(received), answer["ContentLength"]
    with answer["Body"] as raw:
        while piece := raw.read1(_PIECE):
            received += piece
            if time.monotonic() > deadline + (len(received) - before) / _LEAST_BYTES_PER_S:
                raise RejectedImage("timeout", f"the storage sent no more than {len(received)} bytes in time")
    if len(received) - before < expected:
        raise IncompleteReadError(actual_bytes=len(received) - before, expected_bytes=expected)


def get_whole(uri: str) -> bytes:
    """An object of ours. Raises FileNotFoundError, or another OSError, or CredentialsError."""
    try:
        return get(uri, 0, _LARGEST_OBJECT)
    except RejectedImage as rejected:
        raise _of_ours(uri, rejected) from None


def exists(uri: str) -> bool:
    """Whether there is an object, or any beneath it as a folder. Raises OSError, or PneumoniaError."""
    if split_uri(uri)[1]:
        try:
            head(uri)
            return True
        except RejectedImage as rejected:
            if rejected.reason != "not_found":
                raise _of_ours(uri, rejected) from None
    return any(list_pages(f"{uri.rstrip('/')}/"))


def size(uri: str) -> int:
    """The bytes of an object of ours. Raises FileNotFoundError, or another OSError, or CredentialsError."""
    try:
        return head(uri).size_bytes
    except RejectedImage as rejected:
        raise _of_ours(uri, rejected) from None


def _of_ours(uri: str, rejected: RejectedImage) -> OSError:
    if rejected.reason == "not_found":
        return FileNotFoundError(f"the bucket has no {uri}")
    if rejected.reason == "forbidden":
        return PermissionError(f"the bucket does not give {uri}: {rejected.detail}")
    return BucketError(f"the bucket did not give {uri}: {rejected.detail}")


def list_pages(uri: str) -> Iterator[list[StoredObject]]:
    """All objects whose keys begin with that of the URI, in the order of their keys, by the thousand.

    Raises PneumoniaError where the bucket cannot be listed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_uri(uri)
    pages = s3_client.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    try:
        for page in pages:
            yield [
                StoredObject(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
                for entry in page.get("Contents", ())
            ]
    except (ClientError, BotoCoreError) as error:
        raise _not_listed(bucket, error) from error


def _not_listed(bucket: str, error: BaseException) -> PneumoniaError:
    code = _code(error)
    kind: type[PneumoniaError] = PneumoniaError
    if code in _CREDENTIALS or code == "NoCredentialsError":
        kind = CredentialsError
    elif code in _MISSING or code in _DENIED:
        kind = InvalidInput
    return kind(
        f"s3://{bucket} cannot be listed ({_code(error)}). Check bucket, credentials and "
        "AWS_ENDPOINT_URL, then run the same command again."
    )


def list_folder(uri: str) -> list[str]:
    """The names of objects and folders directly beneath a folder's URI. Raises PneumoniaError."""
    from botocore.exceptions import BotoCoreError, ClientError

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
        raise _not_listed(bucket, error) from error


class RangeFile(io.RawIOBase):
    """An object as a file that can be read anywhere, each time by a range. Raises OSError."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._position = 0
        self._size = size(uri)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        )
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        count = min(len(view), max(self._size - self._position, 0))
        try:
            data = get(self._uri, self._position, count) if count else b""
        except RejectedImage as rejected:
            raise _of_ours(self._uri, rejected) from None
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def put(uri: str, data: Any, only_if: str | None = None) -> str | None:
    """Write an object by one request; its new version. With `only_if`, a version or "" for none, None where
    the object is at another. Raises OSError."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = split_uri(uri)
    condition = {}
    if only_if is not None:
        condition = {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"}
    try:
        answer = s3_client.client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
    except (ClientError, BotoCoreError) as error:
        refused = ("412", "409", "PreconditionFailed", "ConditionalRequestConflict", "404", "NoSuchKey")
        if only_if is not None and _code(error) in refused:
            return None
        raise _failed(f"the bucket did not take {uri}", error) from error
    return str(answer["ETag"]).strip('"')


@dataclass(frozen=True)
class AgedObject:
    """An object's bytes and version, and how old it is by the bucket's own clock."""

    data: bytes
    version: str
    age_s: float


def get_aged(uri: str) -> AgedObject | None:
    """A small object, or None where there is none; an answer that breaks off is asked for again. Raises OSError."""
    from email.utils import parsedate_to_datetime

    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    bucket, key = split_uri(uri)
    deadline = time.monotonic() + _GIVE_UP_AFTER_S
    pause_s = s3_client.BACKOFF_S
    while True:
        answered = False
        try:
            answer = s3_client.client().get_object(Bucket=bucket, Key=key)
            answered = True
            data = answer["Body"].read()
            break
        except (ClientError, BotoCoreError, HTTPError) as error:
            if _code(error) in _MISSING:
                return None
            if not answered or time.monotonic() > deadline:
                raise _failed(f"the bucket did not give {uri}", error) from error
        time.sleep(pause_s)
        pause_s *= 2
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.datetime.now(datetime.UTC)
    return AgedObject(data, str(answer["ETag"]).strip('"'), (now - answer["LastModified"]).total_seconds())


def delete(uris: list[str]) -> None:
    """Delete objects, up to a thousand; they may be gone already. Raises OSError."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _ = split_uri(uris[0])
    try:
        if len(uris) == 1:
            s3_client.client().delete_object(Bucket=bucket, Key=split_uri(uris[0])[1])
        else:
            keys = [{"Key": split_uri(uri)[1]} for uri in uris]
            s3_client.client().delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
    except (ClientError, BotoCoreError) as error:
        raise _failed(f"the bucket did not delete {uris[0]}", error) from error


def _code(error: BaseException) -> str:
    """The storage's own word for an error; never its message."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return str(response["Error"].get("Code", "unknown"))
    return type(error).__name__


def _reject(error: BaseException) -> NoReturn:
    """What an error of the storage means for an image."""
    from botocore.exceptions import (
        ConnectTimeoutError,
        CredentialRetrievalError,
        NoCredentialsError,
        ReadTimeoutError,
    )
    from urllib3.exceptions import TimeoutError as PoolTimeout

    code = _code(error)
    if code in _CREDENTIALS or isinstance(error, CredentialRetrievalError | NoCredentialsError):
        raise CredentialsError(
            f"the storage does not take the credentials any more ({code}). What is finished is kept: renew them "
            "and run the same command again."
        ) from None
    if code in _MISSING:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    if code in _DENIED:
        raise RejectedImage("forbidden", "the storage does not allow to read it") from None
    if code in _CHANGED:
        raise RejectedImage("unreadable", REWRITTEN) from None
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError | PoolTimeout | TimeoutError):
        raise RejectedImage(
            "timeout", f"the storage did not answer within {s3_client.ATTEMPTS} attempts"
        ) from None
    raise RejectedImage(
        "unreadable", f"the storage failed in each of {s3_client.ATTEMPTS} attempts"
    ) from None


def _failed(what: str, error: Exception) -> OSError:
    """The error of a request for an object of ours: the bucket refused it, or it fails."""
    refused = _code(error) in _DENIED | _MISSING
    return (OSError if refused else BucketError)(f"{what} ({_code(error)})")


@cache
def check_bucket(bucket: str) -> None:
    """Raise OSError where there is no such bucket, or it is not ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        s3_client.client().head_bucket(Bucket=bucket)
    except (ClientError, BotoCoreError, ValueError) as error:
        raise OSError(f"the bucket {bucket} cannot be used ({_code(error)})") from error
