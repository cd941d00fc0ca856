"""Connects to the Jobs API of one cluster: its address, its token, and clear errors when it does not answer.

`connect` changes four things of the whole process:
- no_proxy and NO_PROXY, where a proxy is set: this machine is never asked through it;
- RAY_AUTH_MODE=token, where a token exists: Ray reads the mode at import, and sends no token without it;
- RAY_API_SERVER_ADDRESS: Ray's client prefers this variable, and RAY_ADDRESS, to its own argument;
- the log level of Ray's client, which logs each step of a submission.
"""

import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.system.proxies import never_proxy_loopback

if TYPE_CHECKING:
    from cluster.time_limited_client import TimeLimitedClient


THIS_MACHINE: Final = "http://127.0.0.1:8265"  # where `ray start --head` puts its dashboard
ANSWER_TIMEOUT_S: Final = 10.0
REQUEST_TIMEOUT_S: Final = 30.0
TOKEN_HELP: Final = (
    "A cluster has the token that existed when it started. For a new cluster, run `ray get-auth-token "
    "--generate` first. For a running one, put its token into ~/.ray/auth_token, or into a file named by "
    "RAY_AUTH_TOKEN_PATH."
)


def connect(given: str | None, request_timeout_s: float = REQUEST_TIMEOUT_S) -> "TimeLimitedClient":
    """A client of the cluster at `given` or in the environment, with the token found here.

    Call it before Ray is imported. Raises InvalidInput when nothing answers, or when the cluster wants
    another token.
    """
    address = cluster_address(given)
    never_proxy_loopback(address)
    token = use_token()
    _expect_answer(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    # Ray reads the environment when it is imported; both variables are set now.
    from cluster.time_limited_client import AuthenticationError, TimeLimitedClient, quiet_ray_client

    quiet_ray_client()
    try:
        return TimeLimitedClient(address, request_timeout_s)
    except AuthenticationError:
        if token is None:
            raise InvalidInput(
                f"the cluster at {address} asks for a token and there is none here. {TOKEN_HELP}"
            ) from None
        raise InvalidInput(f"the cluster at {address} refuses the token of {token}. {TOKEN_HELP}") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"the server at {address} is not a Ray dashboard: {first_line(error)}. Check --address."
        ) from error


@contextlib.contextmanager
def request_errors_explained(client: "TimeLimitedClient", failure: str) -> Iterator[None]:
    """Raises PneumoniaError, "ADDRESS `failure`: REASON", where a request fails or has no answer."""
    from ray.exceptions import AuthenticationError  # Ray is imported after `connect` has set the environment

    try:
        yield
    except (OSError, RuntimeError, AuthenticationError) as error:
        raise PneumoniaError(f"{client.get_address()} {failure}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text, shortened; the error's class where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def cluster_address(given: str | None) -> str:
    """The dashboard's URL: `given`, else RAY_API_SERVER_ADDRESS, an http RAY_ADDRESS, or this machine.

    Raises InvalidInput for an address that is not http, or that carries a password.
    """
    ray_address = os.environ.get("RAY_ADDRESS", "")
    address = (
        given
        or os.environ.get("RAY_API_SERVER_ADDRESS")
        or (ray_address if ray_address.startswith(("http://", "https://")) else "")
        or THIS_MACHINE
    )
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise InvalidInput(f"the cluster's address must not carry a user or password. {TOKEN_HELP}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput(
            f"{address} is not an address for jobs. Give the URL of the dashboard, such as {THIS_MACHINE}."
        )
    return address.rstrip("/")


def use_token() -> str | None:
    """Make Ray send the token found here. Returns the token's source, None where there is no token.

    Looks where Ray does: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token. Raises
    InvalidInput for a RAY_AUTH_TOKEN_PATH that cannot be read: Ray would end the whole process.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if os.environ.get("RAY_AUTH_TOKEN"):
        source: str | None = "RAY_AUTH_TOKEN"
    elif path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        source = f"{path} (RAY_AUTH_TOKEN_PATH)"
        if not _holds_text(Path(path)):
            raise InvalidInput(f"RAY_AUTH_TOKEN_PATH names {path}, which cannot be read or is empty.")
    else:
        path = str(Path.home() / ".ray" / "auth_token")
        source = path if _holds_text(Path(path)) else None
    if source is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
    return source


def _holds_text(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False


def _expect_answer(address: str) -> None:
    # Ray's client has no time limit on its first requests: an address that swallows packets would block for
    # minutes.
    try:
        # Not `urlopen`, which keeps the proxies that it finds at its first use.
        urllib.request.build_opener().open(f"{address}/api/version", timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # the server answers; Ray's client judges the answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        not_http = isinstance(error, http.client.HTTPException)
        reason = "it does not speak HTTP" if not_http else getattr(error, "reason", None) or error
        raise InvalidInput(
            f"no cluster answers at {address}: {reason}. Start one (`ray start --head`), open a tunnel to it "
            "(`ray dashboard`, `kubectl port-forward`), or give another --address."
        ) from error
