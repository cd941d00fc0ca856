"""Ray's client of the Jobs API, with a time limit on every request.

Imports Ray: `cluster.client.connect` sets the environment first.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from ray.exceptions import AuthenticationError as AuthenticationError
from ray.job_submission import JobSubmissionClient

if TYPE_CHECKING:
    from requests import Response

# What a request raises, or the log that is followed, where the connection fails.
CONNECTION_ERRORS: Final = (OSError, RuntimeError, aiohttp.ClientError, AuthenticationError)
NODES_WAIT_S: Final = 20.0

_RAY_LOGGERS: Final = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)


def quiet_ray_client() -> None:
    """Only errors of Ray's client reach stderr: the command prints its own lines about the submission."""
    for name in _RAY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


class TimeLimitedClient(JobSubmissionClient):
    """Client of one cluster. A request without an answer fails after `timeout_s`.

    Ray's own requests have no limit: behind a broken tunnel they would block without end, and Ctrl-C with
    them. All of them go through `_do_request`, which hands further keywords to `requests.request`.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        super().__init__(address)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> "Response":  # noqa: ANN401 - Ray's
        return super()._do_request(method, endpoint, **{"timeout": self._timeout_s, **options})

    def runs_on_this_machine(self) -> bool:
        """Whether the head runs on this machine and file system: its session folder exists here.

        The address cannot tell: behind 127.0.0.1 there may be a tunnel to a cluster far away.
        """
        deadline = time.monotonic() + NODES_WAIT_S
        while time.monotonic() < deadline:
            answer = self._do_request("GET", "/nodes?view=summary")
            nodes = answer.json()["data"]["summary"] if answer.status_code == 200 else []
            for node in nodes:
                raylet = node.get("raylet", {})
                if raylet.get("isHeadNode") and raylet.get("sessionDir"):
                    return Path(raylet["sessionDir"]).is_dir()
            time.sleep(0.5)  # a head that has just started does not know its nodes yet
        return False
