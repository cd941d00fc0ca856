"""What deltalake's errors mean. It has few classes for them: most of it is in their text."""

import os
import re
import time
from collections.abc import Callable
from typing import Final, TypeVar

from deltalake.exceptions import DeltaError

from pneumonia_core.storage.errors import BucketError, error_text

T = TypeVar("T")
# Between the attempts of one request to a bucket; deltalake itself may wait for minutes in each.
_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
_ASK_FOR_S: Final = 60.0
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_BUSY: Final = re.compile(r"status code: (5\d\d|429)")
_GONE: Final = re.compile(r"Object at location (.+) not found")
# Colours and arrows in deltalake's errors.
_ORNAMENT: Final = re.compile(r"\x1b\[\d+m|↳")


def retry_on_lost_connection(action: Callable[[], T]) -> T:
    """What the action returns, tried again where the connection to a bucket broke off.

    deltalake repeats a request that the bucket refuses, but not one whose answer broke off.
    """
    until = time.monotonic() + _ASK_FOR_S
    for pause_s in _PAUSES_S:
        try:
            return action()
        except (DeltaError, OSError) as error:
            if not is_connection_error(error) or time.monotonic() > until:
                raise
        time.sleep(pause_s)
    return action()


def is_connection_error(error: Exception) -> bool:
    """Whether the storage was unreachable or overloaded (5xx, 429)."""
    text = str(error)
    return "Generic S3 error" in text and ("HTTP error" in text or bool(_BUSY.search(text)))


def as_os_error(error: Exception) -> OSError:
    """The error of the disk or bucket that deltalake reports as text: with its number, or a BucketError."""
    if isinstance(error, OSError) and error.errno:
        return error
    if found := _OS_ERROR.search(str(error)):
        number = int(found[1])
        return OSError(number, os.strerror(number))
    text = _ORNAMENT.sub("", str(error)) or type(error).__name__
    return BucketError(text) if is_connection_error(error) else OSError(text)


def delta_error_text(error: Exception) -> str:
    """What an error of deltalake says, in at most 300 characters."""
    return error_text(as_os_error(error))


def reading_error_text(error: Exception) -> str:
    """What an error says that came of reading the table's files, in at most 300 characters."""
    if found := _GONE.search(str(error)):
        return f"its file {found[1]} is gone: another program has removed it"
    if isinstance(error, FileNotFoundError) and not error.errno:
        return f"{error} is gone"
    return delta_error_text(error)
