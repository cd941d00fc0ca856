"""Objects in S3: listed page by page, read by range, written and deleted by one request.

boto3 rather than pyarrow: it lists a prefix of any size in constant memory, gives every key as it is (with
newlines, `%`, `?`, empty path segments), says which error occurred, and can write on a condition.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NoReturn

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.backend import MAX_SOURCE_BYTES, StoredFile
from pneumonia_core.storage.errors import (
    BucketError,
    CredentialsError,
    StorageUnavailable,
    as_own_object_error,
    error_code,
)
from pneumonia_core.storage.patience import GaveUp, Purpose, persist
from pneumonia_core.storage.s3.answers import (
    BAD_SIGNATURE,
    CONDITION_FAILED,
    REQUEST_ERRORS,
    is_transient,
    not_listed,
    object_version,
    raise_meaning,
    request_failed,
)
from pneumonia_core.storage.s3.download import Download
from pneumonia_core.storage.s3.request import ask


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
    """Size and version (ETag, else size and time) of an object.

    Raises RejectedImage, CredentialsError or StorageUnavailable.
    """
    bucket, key = split_uri(uri)
    try:
        answer = ask(bucket, "head_object", Purpose.IMAGE, Key=key)
    except REQUEST_ERRORS as error:
        raise_meaning(f"s3://{bucket}", error)
    size_bytes = answer["ContentLength"]
    without_etag = object_version({**answer, "ETag": None}, size_bytes)
    return StoredFile(uri, size_bytes, object_version(answer, size_bytes), without_etag)


def get(uri: str, offset: int, count: int, version: str | None = None) -> bytes:
    """Up to `count` bytes of an object from `offset` on; of this `version` only, where it is given.

    Raises RejectedImage, for more than 512 MiB before they are received, CredentialsError or
    StorageUnavailable.
    """
    if not count:
        return b""
    bucket, key = split_uri(uri)
    download = Download(bucket, key, offset, offset + count, version, MAX_SOURCE_BYTES)
    return bytes(_received(download, bucket, Purpose.IMAGE).data)


def get_whole(uri: str) -> bytes:
    """All bytes of one of the program's own objects.

    Raises FileNotFoundError, another OSError, or CredentialsError.
    """
    try:
        return bytes(_received(Download(*split_uri(uri)), split_uri(uri)[0], Purpose.OWN_FILE).data)
    except (RejectedImage, StorageUnavailable) as error:
        raise as_own_object_error(uri, error) from None


def get_aged(uri: str) -> AgedObject | None:
    """A small object, a lease, with its age, or None where there is none. Raises OSError."""
    try:
        download = _received(Download(*split_uri(uri)), split_uri(uri)[0], Purpose.LEASE)
    except (RejectedImage, StorageUnavailable) as error:
        if isinstance(error, RejectedImage) and error.reason == "not_found":
            return None
        raise as_own_object_error(uri, error) from None
    except CredentialsError as error:
        raise BucketError(f"{uri} could not be read: {error.text}") from error
    answer = download.answer
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(date) if date else datetime.datetime.now(datetime.UTC)
    version = object_version(answer, len(download.data))
    return AgedObject(bytes(download.data), version, (now - answer["LastModified"]).total_seconds())


def _received(download: Download, bucket: str, purpose: Purpose) -> Download:
    """The download, complete. Raises RejectedImage, CredentialsError or StorageUnavailable."""
    try:
        persist(f"s3://{bucket}", download.resume, is_transient, purpose)
    except REQUEST_ERRORS as error:
        _raise_meaning(bucket, error)
    return download


def _raise_meaning(bucket: str, error: Exception) -> NoReturn:
    """Raise what an error means for an image: RejectedImage, CredentialsError or StorageUnavailable."""
    if error_code(error) == BAD_SIGNATURE and _accepts_signature(bucket):
        raise RejectedImage("unreadable", "the storage rejects the signature for this name only") from None
    raise_meaning(f"s3://{bucket}", error)


def _accepts_signature(bucket: str) -> bool:
    """Whether the storage accepts the signature of a request without a key.

    Some S3 gateways rewrite keys such as `a//b` before they check the signature. That rejects one image, not
    the run.
    """
    try:
        ask(bucket, "list_objects_v2", Purpose.OWN_FILE, MaxKeys=1)
    except GaveUp as error:
        raise_meaning(f"s3://{bucket}", error)
    except REQUEST_ERRORS as error:
        return error_code(error) != BAD_SIGNATURE
    return True


def list_pages(uri: str, start: str | None = None) -> Iterator[list[StoredFile]]:
    """All objects whose keys begin with that of the URI, in the order of their keys, by the thousand.

    They begin after the key of the URI `start`. Raises PneumoniaError where the bucket cannot be listed.
    """
    bucket, prefix = split_uri(uri)
    beginning = {} if start is None else {"StartAfter": split_uri(start)[1]}
    for page in _pages(bucket, Prefix=prefix, **beginning):
        yield [_listed(bucket, entry) for entry in page.get("Contents", ())]


def _listed(bucket: str, entry: dict[str, Any]) -> StoredFile:
    return StoredFile(f"s3://{bucket}/{entry['Key']}", entry["Size"], object_version(entry, entry["Size"]))


def _pages(bucket: str, **parameters: str) -> Iterator[dict[str, Any]]:
    """The pages of a listing. Raises PneumoniaError."""
    while True:
        try:
            page = ask(bucket, "list_objects_v2", Purpose.OWN_FILE, **parameters)
        except REQUEST_ERRORS as error:
            raise not_listed(f"s3://{bucket}", error) from error
        yield page
        following = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or following in (None, parameters.get("ContinuationToken")):
            return
        parameters["ContinuationToken"] = following


def list_folder(uri: str) -> list[str]:
    """The names of objects and folders directly in a folder. Raises PneumoniaError."""
    bucket, key = split_uri(uri)
    prefix = f"{key.rstrip('/')}/" if key else ""
    return [
        name.removeprefix(prefix).rstrip("/")
        for page in _pages(bucket, Prefix=prefix, Delimiter="/")
        for name in (
            *(entry["Key"] for entry in page.get("Contents", ())),
            *(entry["Prefix"] for entry in page.get("CommonPrefixes", ())),
        )
        if name != prefix
    ]


def put(uri: str, data: bytes, only_if: str | None = None) -> str | None:
    """Write an object by one request and return its new version.

    With `only_if`, a version or "" for no object, returns None where the object is at another. That may be
    the version that this call wrote, where the bucket's first answer was lost. Raises OSError.
    """
    bucket, key = split_uri(uri)
    condition = {}
    if only_if is not None:
        condition = {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"}
    purpose = Purpose.OWN_FILE if only_if is None else Purpose.LEASE
    try:
        answer = ask(bucket, "put_object", purpose, Key=key, Body=data, **condition)
    except REQUEST_ERRORS as error:
        if only_if is not None and error_code(error) in CONDITION_FAILED:
            return None
        raise request_failed(f"the bucket did not take {uri}", error_code(error)) from error
    return object_version(answer, len(data))


def written_at_s(uri: str) -> float:
    """When one of the program's own objects was written, by the bucket's clock, in seconds since 1970.

    Raises OSError.
    """
    bucket, key = split_uri(uri)
    try:
        answer = ask(bucket, "head_object", Purpose.OWN_FILE, Key=key)
    except REQUEST_ERRORS as error:
        raise request_failed(f"the bucket does not tell the time of {uri}", error_code(error)) from error
    return float(answer["LastModified"].timestamp())


def delete(uris: list[str], purpose: Purpose = Purpose.OWN_FILE) -> None:
    """Delete objects, up to a thousand; they may be gone already. Raises OSError."""
    bucket, key = split_uri(uris[0])
    try:
        if len(uris) == 1:
            answer = ask(bucket, "delete_object", purpose, Key=key)
        else:
            objects = [{"Key": split_uri(uri)[1]} for uri in uris]
            deletion = {"Objects": objects, "Quiet": True}
            answer = ask(bucket, "delete_objects", purpose, Delete=deletion)
    except REQUEST_ERRORS as error:
        raise request_failed(f"the bucket did not delete {uris[0]}", error_code(error)) from error
    kept = answer.get("Errors", [])
    if kept:
        what = f"the bucket did not delete s3://{bucket}/{kept[0]['Key']}"
        raise request_failed(what, kept[0].get("Code", "unknown"))


@cache
def check_bucket(bucket: str) -> None:
    """Raise OSError where there is no such bucket, or this process may not use it."""
    try:
        ask(bucket, "head_bucket", Purpose.OWN_FILE)
    except REQUEST_ERRORS as error:
        raise request_failed(f"the bucket {bucket} cannot be used", error_code(error)) from error
