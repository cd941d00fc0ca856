"""The Jobs API of one cluster: its address, the token that opens it, and plain words when it does not open."""

import contextlib
import functools
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pneumonia_core.errors import InvalidInput, PneumoniaError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


THIS_MACHINE = "http://127.0.0.1:8265"  # where `ray start --head` puts its dashboard
ANSWER_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 30.0
TOKEN_HELP = (
    "A cluster has the token that was there when it started: for a new one, run `ray get-auth-token "
    "--generate` first; for one that runs, put its token into ~/.ray/auth_token, or into a file named by "
    "RAY_AUTH_TOKEN_PATH."
)


def connect(given: str | None) -> "JobSubmissionClient":
    """A client of the cluster at `given`, or where the environment says, with the token found here.

    Must be called before Ray is imported: Ray reads its authentication mode once. Raises InvalidInput
    when nothing answers, or when the cluster wants another token.
    """
    address = cluster_address(given)
    token = use_token()
    _expect_an_answer(address)
    # Ray's client prefers this variable, and RAY_ADDRESS, to its own argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    _quiet_ray()
    try:
        return _time_limited(JobSubmissionClient(address))
    except AuthenticationError:
        if token is None:
            raise InvalidInput(
                f"the cluster at {address} asks for a token and there is none here. {TOKEN_HELP}"
            ) from None
        raise InvalidInput(f"the cluster at {address} refuses the token of {token}. {TOKEN_HELP}") from None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"what answers at {address} is no Ray dashboard: {first_line(error)}. Check --address."
        ) from error


@contextlib.contextmanager
def answers_expected(client: "JobSubmissionClient", what: str) -> Iterator[None]:
    """Raises PneumoniaError, which says that the cluster `what`, where a request fails or has no answer."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except (OSError, RuntimeError, AuthenticationError) as error:
        raise PneumoniaError(f"{client.get_address()} {what}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says first, shortened; its name where it says nothing."""
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
            f"{address} is no address for jobs. Give the URL of the dashboard, such as {THIS_MACHINE}."
        )
    return address.rstrip("/")


def use_token() -> str | None:
    """Make Ray send the token that is here; what it was found in, or None where there is none.

    Looks where Ray does: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token. Raises
    InvalidInput for a RAY_AUTH_TOKEN_PATH that cannot be read: Ray ends the whole process there.
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


def _expect_an_answer(address: str) -> None:
    # The first requests of Ray's client have no time limit; an address that swallows packets would hang for minutes.
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # it answers; what it says is for Ray's client to judge
    except (OSError, ValueError, http.client.HTTPException) as error:
        wrong = isinstance(error, http.client.HTTPException)
        reason = "it does not speak HTTP" if wrong else getattr(error, "reason", None) or error
        raise InvalidInput(
            f"no cluster answers at {address}: {reason}. Start one (`ray start --head`), open the way to it "
            "(`ray dashboard`, `kubectl port-forward`), or give another --address."
        ) from error


def _time_limited(client: "JobSubmissionClient") -> "JobSubmissionClient":
    # Behind a tunnel that broke Ray's own requests would wait for ever, and Ctrl-C with them.
    client._do_request = functools.partial(client._do_request, timeout=REQUEST_TIMEOUT_S)  # type: ignore[method-assign]
    return client


def _quiet_ray() -> None:
    for name in (
        "ray.dashboard.modules.dashboard_sdk",
        "ray.dashboard.modules.job.sdk",
        "ray._private.runtime_env.packaging",
        "ray._private.runtime_env.working_dir",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
