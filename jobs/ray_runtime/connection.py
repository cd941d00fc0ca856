"""Ray started or joined, and made quiet.

Ray reads the environment when it is imported: `jobs.ray_runtime.session` sets it, then imports this module.
"""

import logging
from pathlib import Path

import ray

from jobs.ray_runtime.own_folder import job_config, working_in
from jobs.ray_runtime.own_node import own_node
from pneumonia_core.errors import InvalidInput, PneumoniaError, Remedy


def start(num_cpus: int | None, folder: Path) -> None:
    """Start Ray on this machine, with `folder` as the current one of all its processes.

    Raises InvalidInput where Ray cannot write its files, PneumoniaError where it does not start in time.
    """
    try:
        with working_in(folder), own_node():
            # A bare ray.init() would join whatever else runs on this machine.
            ray.init(
                address="local",
                job_config=job_config(),
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except OSError as error:
        raise InvalidInput(
            f"Ray cannot start on this machine: {error}. It writes a token under the home folder "
            f"(HOME={Path.home()}) and its logs under /tmp (RAY_TMPDIR). Give it folders that this user may "
            "write."
        ) from error
    except Exception as error:
        # Ray raises a bare Exception when its processes take too long to start.
        if type(error) is not Exception:
            raise
        raise PneumoniaError(
            f"Ray did not start on this machine: {error} The machine may be busy.", Remedy.RUN_AGAIN
        ) from error


def connect(address: str, folder: Path) -> None:
    """Connect to the cluster at this address, from `folder`. Raises InvalidInput where none answers."""
    try:
        with working_in(folder):
            ray.init(
                address=address, job_config=job_config(), log_to_driver=False, logging_level=logging.ERROR
            )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(
            f"no Ray cluster answers at {address}: {reason}. Check --address (or RAY_ADDRESS) and, for a "
            "cluster with token authentication, that RAY_AUTH_MODE=token and its token are set."
        ) from error
