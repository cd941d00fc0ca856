"""Requests to this machine go to it, and through no proxy."""

import ipaddress
import os
import socket
from typing import Final
from urllib.parse import urlsplit

# urllib compares an IPv6 address with its brackets, other clients without.
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "[::1]")
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


def never_proxy_loopback(url: str | None = None) -> None:
    """Add this machine's names to `no_proxy`, where a proxy is set, and the host of `url` if it is one.

    A proxy would get the requests of this process and of those that it starts, with the token or the
    signature of each. All clients here read the variable: urllib, requests, boto3, deltalake and gRPC.
    """
    if not any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXIES):
        return
    given = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    names = [name.strip() for name in ",".join(given).split(",") if name.strip()]
    if "*" in names:
        return
    host = urlsplit(url).hostname if url else None
    ours = [*_LOOPBACK, host, f"[{host}]"] if host and is_loopback(host) else _LOOPBACK
    # Some clients read the first of the two alone, others the second.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*names, *ours]))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is always this machine's, also as 127.1 or localhost.localdomain."""
    name = host.rstrip(".").lower()
    if name in ("localhost", "localhost.localdomain") or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except OSError:
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified
