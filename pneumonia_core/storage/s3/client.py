"""The client of S3, by the usual environment variables."""

import threading
from functools import cache
from typing import Any

from pneumonia_core.storage.limits import LIMITS
from pneumonia_core.storage.s3 import settings
from pneumonia_core.system.proxies import never_proxy_loopback

# Clients are made by one thread at a time: that takes long, and boto3 is not made for more.
_lock = threading.Lock()


def client() -> Any:  # noqa: ANN401 - boto3 has no types
    """boto3's client of S3, one for the process. It tries each request once."""
    with _lock:
        return _client()


def forget_client() -> None:
    """Make a client at the next use, from the environment's variables as they are then."""
    _client.cache_clear()


@cache
def _client() -> Any:  # noqa: ANN401 - boto3 has no types
    # Here, because boto3 takes a second to import, and only S3 needs it.
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    never_proxy_loopback(settings.endpoint())
    config = Config(
        connect_timeout=LIMITS.connect_timeout_s,
        read_timeout=LIMITS.read_timeout_s,
        # Boto's own retries share a quota of 500 a client. Ten seconds of throttling use it up, and from then
        # on nothing is tried again; `patience` tries instead.
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=LIMITS.most_at_once,
        s3={"addressing_style": _addressing_style()},
        signature_version=UNSIGNED if settings.is_anonymous() else None,
        # Other makers' S3 do not know these checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3", config=config, endpoint_url=settings.endpoint(), region_name=settings.region()
    )


def _addressing_style() -> str:
    if settings.has_virtual_hosts():
        return "virtual"
    return "path" if settings.endpoint() else "auto"
