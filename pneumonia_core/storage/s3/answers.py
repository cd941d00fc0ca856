"""What an answer or an error of S3 means: for an image, an own file, a listing, or the next attempt."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final, NoReturn

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy
from pneumonia_core.storage.errors import COLD, REWRITTEN, BucketError, CredentialsError, error_code
from pneumonia_core.storage.patience import GaveUp, raise_for_image

# What a request of `request.ask` may raise.
REQUEST_ERRORS: Final = (ClientError, BotoCoreError, ResponseParserError, OSError, ValueError, GaveUp)
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_COLD: Final = frozenset({"InvalidObjectState"})
_DENIED: Final = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", *_COLD})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})
# Answers to a conditional request: the object is at another version, or another request came first.
CONDITION_FAILED: Final = _CHANGED | {"409", "ConditionalRequestConflict", "404", "NoSuchKey"}
BEYOND_THE_END: Final = frozenset({"416", "InvalidRange"})
# Wrong about this process or the clock of this machine, not about an object.
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_NO_CREDENTIALS: Final = frozenset({"NoCredentialsError", "PartialCredentialsError"})
_NOT_FOUND: Final = "no credentials of AWS were found"
BAD_SIGNATURE: Final = "SignatureDoesNotMatch"
_TRANSIENT_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_TRANSIENT: Final = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)


def is_transient(error: Exception) -> bool:
    """Whether the storage is busy, fails or is out of reach, so that the same request may succeed later."""
    # Here, because urllib3 comes with boto3, which only S3 needs.
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in _TRANSIENT_STATUS or error_code(error) in _TRANSIENT
    broken = (NoConnection, HTTPClientError, IncompleteReadError, ResponseParserError, HTTPError, OSError)
    return isinstance(error, broken)


def _is_timeout(error: Exception) -> bool:
    # Here, because urllib3 comes with boto3, which only S3 needs.
    from urllib3.exceptions import TimeoutError as PoolTimeout

    return isinstance(error, ConnectTimeoutError | ReadTimeoutError | PoolTimeout | TimeoutError)


def raise_meaning(bucket: str, error: Exception) -> NoReturn:
    """Raise what an error means for an image: RejectedImage, CredentialsError or StorageUnavailable."""
    if isinstance(error, GaveUp):
        raise_for_image(bucket, error, _is_timeout(error.cause))
    code = error_code(error)
    if code in _NO_CREDENTIALS:
        raise CredentialsError(f"{bucket}: {_NOT_FOUND}.", Remedy.GIVE_CREDENTIALS) from None
    if code in _CREDENTIALS or isinstance(error, CredentialRetrievalError):
        raise CredentialsError(
            f"{bucket}: the storage rejects the credentials ({code}).", Remedy.RENEW_CREDENTIALS
        ) from None
    if code in _MISSING:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    if code in _DENIED:
        detail = COLD if code in _COLD else "the storage does not allow to read it"
        raise RejectedImage("forbidden", detail) from None
    if code in _CHANGED:
        raise RejectedImage("unreadable", REWRITTEN) from None
    raise RejectedImage("unreadable", "the storage does not take the request for it") from None


def request_failed(what: str, code: str) -> OSError:
    """The error of a request that S3 did not carry out.

    An OSError where it refused, a BucketError where it failed.
    """
    return (OSError if code in _DENIED | _MISSING else BucketError)(f"{what} ({code})")


def not_listed(bucket: str, error: BaseException) -> PneumoniaError:
    """The error of a bucket that cannot be listed."""
    code = error_code(error)
    kind: type[PneumoniaError] = PneumoniaError
    if code in _NO_CREDENTIALS:
        return CredentialsError(f"{bucket} cannot be listed: {_NOT_FOUND}.", Remedy.GIVE_CREDENTIALS)
    if code in _CREDENTIALS:
        kind = CredentialsError
    elif code in _MISSING or code in _DENIED:
        kind = InvalidInput
    # Its own kind of "403": the owner lets strangers read who say that they pay.
    hint = " If the requester pays there, set AWS_REQUEST_PAYER=requester." if code in _DENIED else ""
    return kind(f"{bucket} cannot be listed ({code}).{hint}", Remedy.CHECK_BUCKET)


def object_version(facts: Mapping[str, Any], size_bytes: int | None) -> str:
    """The version of an object by what a listing or an answer says: its ETag, else size and time.

    Some gateways give no ETag. Listings tell the time by the millisecond, answers by the second.
    """
    etag = facts.get("ETag")
    if etag:
        return str(etag).strip('"')
    modified = facts.get("LastModified")
    when = modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if modified else ""
    return f"{'' if size_bytes is None else size_bytes}{_AT}{when}"


_AT: Final = "@"


def is_etag(version: str) -> bool:
    """Whether a version is an ETag, which S3 compares itself. No ETag has an @."""
    return _AT not in version


def is_at(version: str, facts: Mapping[str, Any], size_bytes: int | None) -> bool:
    """Whether an object that an answer is about may be at a version.

    Some gateways ignore the condition of a request, and give another version than the one asked for.
    """
    if is_etag(version):
        return _plain_etag(facts.get("ETag") or version) == _plain_etag(version)
    size, _, when = version.partition(_AT)
    found_size, _, found_when = object_version({**facts, "ETag": None}, size_bytes).partition(_AT)
    return when == found_when and found_size in ("", size)


def _plain_etag(etag: object) -> str:
    """An ETag without quotes and without the mark that gateways add where they compress an answer."""
    return str(etag).removeprefix("W/").strip('"')
