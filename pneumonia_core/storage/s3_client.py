"""The client of S3: its environment variables, limits on waiting, and a check that answers are complete."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from botocore.exceptions import ConnectionClosedError


@dataclass
class Limits:
    """Limits on waiting for S3.

    All attempts for one image together stay well below the minute after which its worker would be given up.
    """

    connect_timeout_s: float = 3
    read_timeout_s: float = 6
    attempts: int = 4
    # Before the second attempt; before later ones it grows.
    backoff_s: float = 0.5
    # No new attempt for an object after so long.
    give_up_after_s: float = 15.0
    # An answer that is slower for longer than a moment is given up: a bucket may send a byte every other
    # second forever, and no radiograph comes that slowly.
    least_bytes_per_s: int = 2**17


LIMITS: Final = Limits()
# The headers of a complete answer.
_HEADERS: Final = {
    "HeadObject": frozenset({"content-length", "etag"}),
    "GetObject": frozenset({"etag"}),
    "PutObject": frozenset({"etag"}),
}


def endpoint() -> str | None:
    """The endpoint that the usual variables name, None for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def region() -> str | None:
    """The region that the usual variables name."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


@cache
def client() -> Any:  # noqa: ANN401 - boto3 has no types
    """boto3's client of S3, one for the process."""
    # Here, because boto3 takes a second to import, and only S3 needs it.
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=LIMITS.connect_timeout_s,
        read_timeout=LIMITS.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": LIMITS.attempts},
        max_pool_connections=128,
        s3={"addressing_style": "path" if endpoint() else "auto"},
        # Other makers' S3 do not know these checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    made = boto3.session.Session().client("s3", config=config, endpoint_url=endpoint(), region_name=region())
    made.meta.events.register("needs-retry.s3", _retry_cut_answer)
    return made


def _retry_cut_answer(response: Any, operation: Any, attempts: int, **_: Any) -> float | None:  # noqa: ANN401 - boto3's
    """Seconds until the next attempt where an answer ends within its headers, else None: a handler for boto3.

    Python takes such an answer for one without a body: a listing without keys, an object without bytes.
    """
    if response is None or response[0].status_code >= 300:
        return None
    http, parsed = response
    if operation.name == "ListObjectsV2":
        whole = "Name" in parsed
    else:
        whole = _HEADERS.get(operation.name, frozenset()) <= {name.lower() for name in http.headers}
    if whole:
        return None
    if attempts >= LIMITS.attempts:
        raise ConnectionClosedError(endpoint_url=endpoint() or "S3")
    return LIMITS.backoff_s * attempts
