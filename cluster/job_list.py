"""The jobs of a cluster: listing them, and stopping one."""

import datetime
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.client import request_errors_explained
from cluster.submit import STOP_WAIT_S
from pneumonia_core.errors import InvalidInput, PneumoniaError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    from cluster.time_limited_client import TimeLimitedClient


@dataclass(frozen=True)
class Job:
    """One submitted job.

    `started` is UTC in ISO format, None before the start; `exit_code` is None before the end.
    """

    id: str
    state: str
    exit_code: int | None
    started: str | None
    seconds: float | None
    entrypoint: str


def list_jobs(client: "TimeLimitedClient") -> list[Job]:
    """The jobs submitted to the cluster, the newest first. Raises PneumoniaError where it does not answer."""
    with request_errors_explained(client, "did not list its jobs"):
        submitted = [details for details in client.list_jobs() if details.submission_id]
    return [_job(details) for details in sorted(submitted, key=lambda d: d.start_time or 0, reverse=True)]


def stop_job(client: "TimeLimitedClient", job_id: str) -> Job:
    """Ask a job to stop and wait for its end; the job as it ended. A job that has ended stays as it is.

    Raises InvalidInput for an id that the cluster does not know, PneumoniaError when the job does not end.
    """
    with request_errors_explained(client, f"did not say that {job_id} has stopped"):
        if job_id not in {details.submission_id for details in client.list_jobs()}:
            raise InvalidInput(
                f"{client.get_address()} has no job {job_id}. `pneumonia jobs list` shows its jobs."
            )
        client.stop_job(job_id)
        return _job(_wait_for_end(client, job_id))


def _wait_for_end(client: "TimeLimitedClient", job_id: str) -> "JobDetails":
    deadline = time.monotonic() + STOP_WAIT_S + 30
    while not (details := client.get_job_info(job_id)).status.is_terminal():
        if time.monotonic() > deadline:
            raise PneumoniaError(f"{job_id} was asked to stop and is still {str(details.status).lower()}.")
        time.sleep(0.5)
    return details


def _job(details: "JobDetails") -> Job:
    started = end = None
    if details.start_time:
        started = datetime.datetime.fromtimestamp(details.start_time / 1000, datetime.UTC)
        end = details.end_time / 1000 if details.end_time else time.time()
    return Job(
        id=details.submission_id or "",
        state=str(details.status).lower(),
        exit_code=details.driver_exit_code,
        started=started.isoformat(timespec="seconds") if started else None,
        seconds=round(end - started.timestamp(), 1) if started and end else None,
        entrypoint=details.entrypoint,
    )
