"""What an error of a disk or a bucket means: for an image, or for one of the program's own files."""

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Final

from pneumonia_core.errors import InvalidInput, PneumoniaError, RejectedImage, Remedy

# Details of rejected images. Only a storage that works gives these answers.
REWRITTEN: Final = "the file was rewritten since it was listed"
COLD: Final = "it is in cold storage: restore it first"
NO_REGULAR_FILE: Final = "no regular file"


class BucketError(OSError):
    """The storage fails; its files may be intact."""


class CredentialsError(PneumoniaError):
    """The storage rejects the credentials: no image is the cause, and the run can be resumed."""


class StorageUnavailable(PneumoniaError):
    """A storage gives nothing, or nothing to this machine: no image is the cause, and it may pass."""


def cannot_write(uri: str, what: str, error: OSError) -> PneumoniaError:
    """The error of a failed write: `what` cannot be done at `uri`.

    A full disk or a storage that fails may take it later: a PneumoniaError. Otherwise the user must choose
    another location: an InvalidInput.
    """
    text = f"{uri}: {what} ({error_text(error)})."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PneumoniaError(text, Remedy.MAKE_ROOM)
    if isinstance(error, BucketError):
        return PneumoniaError(text, Remedy.WHEN_STORAGE_ANSWERS)
    return InvalidInput(f"{text} Choose a location that you may write to.")


def error_text(error: Exception) -> str:
    """What the operating system or the storage says about an error, in at most 300 characters."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    lines = [line.strip() for line in str(error).splitlines()]
    return ": ".join(line for line in lines if line)[:300] or type(error).__name__


def error_code(error: BaseException) -> str:
    """The storage's own code of an error, else its type; never its message."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return str(response["Error"].get("Code", "unknown"))
    cause = getattr(error, "cause", None)
    return error_code(cause) if isinstance(cause, Exception) else type(error).__name__


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


def as_own_object_error(uri: str, error: RejectedImage | StorageUnavailable) -> OSError:
    """The OSError of one of the program's own files that could not be read."""
    if isinstance(error, StorageUnavailable):
        return BucketError(f"{uri} could not be read: {error.text}")
    if error.reason == "not_found":
        return FileNotFoundError(f"there is no {uri}")
    if error.reason == "forbidden":
        return PermissionError(f"{uri} may not be read: {error.detail}")
    return BucketError(f"{uri} could not be read: {error.detail}")
