"""What the usual variables of the environment say about S3: where it is, who pays, whether to sign."""

import os
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pneumonia_core.errors import InvalidInput

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
# As deltalake reads them.
_TRUE: Final = frozenset({"1", "true", "on", "yes", "y"})


def endpoint() -> str | None:
    """The endpoint, None for Amazon's own. Raises InvalidInput where it has no scheme or no host."""
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if name is None:
        return None
    url = os.environ[name].strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise InvalidInput(
            f"the variable {name} is not the URL of a storage. Write it with its scheme and without "
            "credentials, as https://HOST or http://HOST:PORT."
        )
    return url


def endpoint_of(bucket: str) -> str | None:
    """The endpoint with the bucket in the name of its host, where buckets are addressed so."""
    url = endpoint()
    if url is None or not has_virtual_hosts():
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{bucket}.{rest}"


def region() -> str | None:
    """The region."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None


def is_anonymous() -> bool:
    """Whether requests are not signed, as for public buckets (AWS_SKIP_SIGNATURE)."""
    return _is_true("AWS_SKIP_SIGNATURE")


def requester_pays() -> bool:
    """Whether this account pays for its requests to another's bucket (AWS_REQUEST_PAYER)."""
    return os.environ.get("AWS_REQUEST_PAYER", "").strip().lower() == "requester" or _is_true(
        "AWS_REQUEST_PAYER"
    )


def has_virtual_hosts() -> bool:
    """Whether the host's name has the bucket also at an endpoint (AWS_VIRTUAL_HOSTED_STYLE_REQUEST)."""
    return _is_true("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")


def ca_bundle() -> str | None:
    """The file of the authorities that are trusted in place of the system's (AWS_CA_BUNDLE)."""
    return os.environ.get("AWS_CA_BUNDLE") or None


def share_ca_bundle() -> None:
    """Let deltalake trust AWS_CA_BUNDLE too. It reads SSL_CERT_FILE alone.

    The authorities of the system's folder stay trusted. What the user has set is left as it is.
    """
    bundle = ca_bundle()
    if bundle is None or os.environ.get("SSL_CERT_FILE"):
        return
    os.environ["SSL_CERT_FILE"] = bundle
    folder = ssl.get_default_verify_paths().openssl_capath
    if Path(folder).is_dir():
        os.environ.setdefault("SSL_CERT_DIR", folder)


def _is_true(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _TRUE
