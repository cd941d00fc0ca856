"""The client of S3: the usual variables of the environment, limits on waiting, and answers that must be whole."""

import os
from functools import cache
from typing import Any, Final

# All attempts for one image together stay well below the minute after which its worker would be given up.
CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 6
ATTEMPTS: Final = 4
BACKOFF_S: Final = 0.5
# What a whole answer has.
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
def client() -> Any:
    """boto3's client of S3, one for the process."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=128,
        s3={"addressing_style": "path" if endpoint() else "auto"},
        # Checksums that other makers' S3 do not know.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    made = boto3.session.Session().client("s3", config=config, endpoint_url=endpoint(), region_name=region())
    made.meta.events.register("needs-retry.s3", _retry_what_is_cut)
    return made


def _retry_what_is_cut(response: Any, operation: Any, attempts: int, **_: Any) -> float | None:
    """Seconds after which to ask again where the answer's headers break off, None where they are whole.

    Python takes a connection that ends within the headers for an answer without a body: a listing without keys, an
    object of no bytes.
    """
    from botocore.exceptions import ConnectionClosedError

    if response is None or response[0].status_code >= 300:
        return None
    http, parsed = response
    if operation.name == "ListObjectsV2":
        whole = "Name" in parsed
    else:
        whole = _HEADERS.get(operation.name, frozenset()) <= {name.lower() for name in http.headers}
    if whole:
        return None
    if attempts >= ATTEMPTS:
        raise ConnectionClosedError(endpoint_url=endpoint() or "S3")
    return BACKOFF_S * attempts
