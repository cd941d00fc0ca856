"""What an error of a disk or of S3 means: for an image, for one of the program's own files, for a listing."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final, NoReturn

from botocore.exceptions import ConnectTimeoutError, CredentialRetrievalError, ReadTimeoutError

from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage
from pneumonia_core.storage import s3_client


def cannot_write(uri: str, what: str, error: OSError) -> PneumoniaError:
    """The error of a failed write: `what` cannot be done at `uri`.

    A full disk or a storage that fails may take it later: a PneumoniaError. Otherwise the user must choose
    another location: an InvalidInput.
    """
    remedy = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "Make room there, then run the same command again."
    elif isinstance(error, BucketError):
        remedy = "Run the same command again when the storage answers."
    if remedy:
        return PneumoniaError(f"{uri}: {what} ({error_text(error)}). {remedy}")
    return InvalidInput(f"{uri}: {what} ({error_text(error)}). Choose a location that you may write to.")


def error_text(error: Exception) -> str:
    """What the operating system or the storage says about an error, in at most 300 characters."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    lines = [line.strip() for line in str(error).splitlines()]
    return ": ".join(line for line in lines if line)[:300] or type(error).__name__


@contextlib.contextmanager
def os_errors_rejected() -> Iterator[None]:
    """Raise RejectedImage for what the operating system says about reading an image.

    The text of its error may contain names and is left out.
    """
    try:
        yield
    except FileNotFoundError:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    except PermissionError:
        raise RejectedImage("forbidden", "no permission to read it") from None
    except TimeoutError:
        raise RejectedImage("timeout", "the storage did not answer in time") from None
    except OSError as error:
        raise RejectedImage("unreadable", f"the storage gave error number {error.errno}") from None
    except ValueError:
        raise RejectedImage("not_found", "no storage has a file of such a name") from None


REWRITTEN: Final = "the file was rewritten since it was listed"
_MISSING: Final = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound"})
_DENIED: Final = frozenset({"401", "403", "AccessDenied", "AllAccessDisabled", "InvalidObjectState"})
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
        "NoCredentialsError",
        "PartialCredentialsError",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)


class BucketError(OSError):
    """The storage fails; its files may be intact."""


class CredentialsError(PneumoniaError):
    """The storage rejects the credentials: no image is the cause, and the run can be resumed."""


def error_code(error: BaseException) -> str:
    """The storage's own code of an error, never its message."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return str(response["Error"].get("Code", "unknown"))
    return type(error).__name__


def reject(error: BaseException) -> NoReturn:
    """Raise what an error of boto3 means for an image: RejectedImage, or CredentialsError."""
    # Here, because urllib3 comes with boto3, which only S3 needs.
    from urllib3.exceptions import TimeoutError as PoolTimeout

    code = error_code(error)
    if code in _CREDENTIALS or isinstance(error, CredentialRetrievalError):
        raise CredentialsError(
            f"the storage rejects the credentials ({code}). Renew them, or set the clock of the machine "
            "that reads, and "
            "run the same command again: it keeps what is finished."
        ) from None
    if code in _MISSING:
        raise RejectedImage("not_found", "listed, but gone when it was read") from None
    if code in _DENIED:
        raise RejectedImage("forbidden", "the storage does not allow to read it") from None
    if code in _CHANGED:
        raise RejectedImage("unreadable", REWRITTEN) from None
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError | PoolTimeout | TimeoutError):
        raise RejectedImage(
            "timeout", f"the storage did not answer within {s3_client.LIMITS.attempts} attempts"
        ) from None
    raise RejectedImage(
        "unreadable", f"the storage failed in each of {s3_client.LIMITS.attempts} attempts"
    ) from None


def as_own_object_error(uri: str, rejected: RejectedImage) -> OSError:
    """The OSError of one of the program's own files that could not be read."""
    if rejected.reason == "not_found":
        return FileNotFoundError(f"there is no {uri}")
    if rejected.reason == "forbidden":
        return PermissionError(f"{uri} may not be read: {rejected.detail}")
    return BucketError(f"{uri} could not be read: {rejected.detail}")


def request_failed(what: str, code: str) -> OSError:
    """The error of a request that S3 did not carry out.

    An OSError where it refused, a BucketError where it failed.
    """
    return (OSError if code in _DENIED | _MISSING else BucketError)(f"{what} ({code})")


def not_listed(bucket: str, error: BaseException) -> PneumoniaError:
    """The error of a bucket that cannot be listed."""
    code = error_code(error)
    kind: type[PneumoniaError] = PneumoniaError
    if code in _CREDENTIALS:
        kind = CredentialsError
    elif code in _MISSING or code in _DENIED:
        kind = InvalidInput
    return kind(
        f"s3://{bucket} cannot be listed ({code}). Check bucket, credentials and AWS_ENDPOINT_URL, then run "
        "the same "
        "command again."
    )
