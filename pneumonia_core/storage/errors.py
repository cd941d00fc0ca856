"""What an error of S3 means: for an image that is read, for an object of ours, for a listing."""

import errno
import os
import re
from typing import Final, NoReturn

from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage import s3_client
from pneumonia_core.storage.location import Location

_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_BUSY: Final = re.compile(r"status code: (5\d\d|429)")
# Colours and arrows in deltalake's errors.
_ORNAMENT: Final = re.compile(r"\x1b\[\d+m|↳")


def cannot_write(place: Location, what: str, error: Exception) -> PneumoniaError:
    """The error that says that `what` cannot be done there: a full disk may have room later, a bucket may answer again,
    any other place must be another."""
    remedy = None
    if _error_number(error) in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Make room there, then run the same command again."
    elif isinstance(error, BucketError) or is_connection_error(error):
        remedy = "Run the same command again when the storage answers."
    if remedy:
        return PneumoniaError(f"{place.uri}: {what} ({error_text(error)}). {remedy}")
    return InvalidInput(f"{place.uri}: {what} ({error_text(error)}). Choose a place that you may write to.")


def error_text(error: Exception) -> str:
    """What the operating system or the storage says of an error, in a few words."""
    if number := _error_number(error):
        return os.strerror(number)
    lines = [_ORNAMENT.sub("", line).strip() for line in str(error).splitlines()]
    return ": ".join(line for line in lines if line)[:300] or type(error).__name__


def is_connection_error(error: Exception) -> bool:
    """Whether the connection to a bucket failed or it had no time for us, by what deltalake says: it has no class for
    that."""
    text = str(error)
    return "Generic S3 error" in text and ("HTTP error" in text or bool(_BUSY.search(text)))


def _error_number(error: Exception) -> int | None:
    """The operating system's number of an error; deltalake tells it in its text alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


REWRITTEN: Final = "the file was rewritten since it was listed"
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED: Final = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "InvalidObjectState"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed"})
# Of a request that put a condition: the object is at another version, or another request was quicker.
CONDITION_FAILED: Final = _CHANGED | {"409", "ConditionalRequestConflict", "404", "NoSuchKey"}
BEYOND_THE_END: Final = frozenset({"416", "InvalidRange"})
# What is wrong with us, or with the clock of this machine, and not with an object.
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoCredentialsError",
        "PartialCredentialsError",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)


class BucketError(OSError):
    """The storage fails: what it holds may be whole."""


class CredentialsError(PneumoniaError):
    """The storage takes our credentials no more: no image is to blame, and the run can be resumed."""


def error_code(error: BaseException) -> str:
    """The storage's own word for an error; never its message."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return str(response["Error"].get("Code", "unknown"))
    return type(error).__name__


def reject(error: BaseException) -> NoReturn:
    """Raise what an error means for an image: RejectedImage, or CredentialsError."""
    from botocore.exceptions import ConnectTimeoutError, CredentialRetrievalError, ReadTimeoutError
    from urllib3.exceptions import TimeoutError as PoolTimeout

    code = error_code(error)
    if code in _CREDENTIALS or isinstance(error, CredentialRetrievalError):
        raise CredentialsError(
            f"the storage does not take the credentials any more ({code}). What is finished is kept: renew them, or set "
            "the clock of the machine that reads, and run the same command again."
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


def as_own_object_error(uri: str, rejected: RejectedImage) -> OSError:
    """What a rejection means for an object of ours."""
    if rejected.reason == "not_found":
        return FileNotFoundError(f"the bucket has no {uri}")
    if rejected.reason == "forbidden":
        return PermissionError(f"the bucket does not give {uri}: {rejected.detail}")
    return BucketError(f"the bucket did not give {uri}: {rejected.detail}")


def request_failed(what: str, code: str) -> OSError:
    """The error that says that a request for an object of ours was not done: the bucket refuses it, or it fails."""
    return (OSError if code in _DENIED | _MISSING else BucketError)(f"{what} ({code})")


def not_listed(bucket: str, error: BaseException) -> PneumoniaError:
    """The error that says that a bucket cannot be listed."""
    code = error_code(error)
    kind: type[PneumoniaError] = PneumoniaError
    if code in _CREDENTIALS:
        kind = CredentialsError
    elif code in _MISSING or code in _DENIED:
        kind = InvalidInput
    return kind(
        f"s3://{bucket} cannot be listed ({code}). Check bucket, credentials and AWS_ENDPOINT_URL, then run the same "
        "command again."
    )
