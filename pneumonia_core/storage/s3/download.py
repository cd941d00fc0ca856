"""The bytes of an object or a part of it, received piece by piece, and from there on where an answer breaks
off."""

import time
from typing import Any, Final

from botocore.exceptions import ClientError, IncompleteReadError

from pneumonia_core.errors import RejectedImage
from pneumonia_core.storage.errors import REWRITTEN, error_code
from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.s3.answers import BEYOND_THE_END, is_at, is_etag, object_version
from pneumonia_core.storage.s3.request import ask_once

_PIECE: Final = 2**18


class Download:
    """An object's bytes from `start` to before `end`, all of one version: the given one, else the first.

    `answer` is the last answer. An answer of more than `most` bytes is rejected before it is received.
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        start: int = 0,
        end: int | None = None,
        version: str | None = None,
        most: int | None = None,
    ) -> None:
        self.data = bytearray()
        self.answer: dict[str, Any] = {}
        self._bucket, self._key = bucket, key
        self._start, self._end = start, end
        self._version = version
        self._most = most

    def resume(self) -> None:
        """Receive what is missing by one request.

        Raises RejectedImage, and what boto3 and its connections raise; the next call then goes on.
        """
        position = self._start + len(self.data)
        if self._end is not None and position >= self._end:
            return
        try:
            answer = ask_once(
                self._bucket, "get_object", Key=self._key, **_range(position, self._end), **self._condition()
            )
        except ClientError as error:
            if error_code(error) in BEYOND_THE_END:
                return
            raise
        with answer["Body"] as body:
            self._check_version(answer)
            self.answer = answer
            self._receive(body, answer.get("ContentLength", 0))

    def _condition(self) -> dict[str, str]:
        return {"IfMatch": f'"{self._version}"'} if self._version and is_etag(self._version) else {}

    def _check_version(self, answer: dict[str, Any]) -> None:
        size_bytes = _whole_size(answer)
        if self._version is None:
            self._version = object_version(answer, size_bytes)
        elif not is_at(self._version, answer, size_bytes):
            raise RejectedImage("unreadable", REWRITTEN)

    def _receive(self, body: Any, expected: int) -> None:  # noqa: ANN401 - urllib3's, whatever boto3 reads by
        """Append the body of an answer, piece by piece as it comes: a full piece might never come."""
        # A server that sends in chunks does not announce the number of bytes.
        if self._most is not None and expected > self._most:
            raise RejectedImage("too_large", f"more bytes than the limit of {self._most}")
        deadline = time.monotonic() + LIMITS.stall_after_s
        before = len(self.data)
        while piece := body.read1(_PIECE):
            self.data += piece
            if time.monotonic() > deadline + (len(self.data) - before) / LIMITS.least_bytes_per_s:
                raise TimeoutError
        if len(self.data) - before < expected:
            raise IncompleteReadError(actual_bytes=len(self.data) - before, expected_bytes=expected)


def _range(start: int, end: int | None) -> dict[str, str]:
    if end is None:
        return {"Range": f"bytes={start}-"} if start else {}
    return {"Range": f"bytes={start}-{end - 1}"}


def _whole_size(answer: dict[str, Any]) -> int | None:
    """Bytes of the whole object that an answer is about, None where it does not say."""
    of_range = answer.get("ContentRange")
    if of_range is None:
        size: int | None = answer.get("ContentLength")
        return size
    total = str(of_range).rpartition("/")[2]
    return int(total) if total.isdigit() else None
