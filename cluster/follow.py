"""Follows a submitted job: its log on stdout as it grows, and its result once it has ended."""

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Final

from cluster.client import first_line
from jobs.console.command import Result
from jobs.console.output import say
from pneumonia_core.errors import PneumoniaError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

    from cluster.time_limited_client import TimeLimitedClient

LOST_CONTACT_S: Final = 60.0
POLL_S: Final = 1.0


def follow(
    client: "TimeLimitedClient",
    job_id: str,
    lost_contact_s: float = LOST_CONTACT_S,
    poll_s: float = POLL_S,
) -> Result:
    """Write the job's log to stdout as it grows; the job's own result, with its exit code, once it has ended.

    Reconnects when the connection breaks, and resumes the log where it stopped. Raises PneumoniaError when
    the cluster does not answer for `lost_contact_s`. A KeyboardInterrupt leaves the job running.
    """
    # Imports Ray, after `connect` has set its environment.
    from cluster.time_limited_client import CONNECTION_ERRORS

    log = JobLog()
    while True:
        try:
            details = asyncio.run(_follow_once(client, job_id, log, poll_s))
            if details is not None:
                log.show(client.get_job_logs(job_id), 0)
                return _result(details, log.last_line())
        except BrokenPipeError:  # not the cluster: the reader of our stdout has left
            raise
        except CONNECTION_ERRORS as error:
            if time.monotonic() - log.last_contact > lost_contact_s:
                raise PneumoniaError(
                    f"no news of {job_id} from {client.get_address()} for {lost_contact_s:.0f} s: "
                    f"{first_line(error)}. The job may still be running: `pneumonia jobs list` shows it once "
                    "the cluster answers again."
                ) from error
        time.sleep(poll_s)


async def _follow_once(
    client: "TimeLimitedClient", job_id: str, log: "JobLog", poll_s: float
) -> "JobDetails | None":
    """Show the log over one connection; the job's details if it ended, None if the connection did."""
    tail = asyncio.create_task(log.tail(client, job_id))
    try:
        while not tail.done():
            # The tail ends seconds after the job.
            await asyncio.wait({tail}, timeout=poll_s)
            details = await asyncio.to_thread(client.get_job_info, job_id)
            log.last_contact = time.monotonic()
            if details.status.is_terminal():
                return details
        return tail.result()
    finally:
        tail.cancel()
        await asyncio.gather(tail, return_exceptions=True)


class JobLog:
    """Writes a job's log to stdout in whole lines; a JSON line is held back while it may be the last one.

    `last_contact` is the monotonic time of the cluster's last answer about the job.
    """

    def __init__(self) -> None:
        self.last_contact = time.monotonic()
        self._seen = 0
        self._held = ""

    async def tail(self, client: "TimeLimitedClient", job_id: str) -> None:
        """Follow the log, which the server sends from its beginning each time."""
        start = 0
        async for text in client.tail_job_logs(job_id):
            self.show(text, start)
            start += len(text)

    def show(self, text: str, start: int) -> None:
        """Write what is new in `text`, the piece of the log that begins at character `start`."""
        new = text[max(self._seen - start, 0) :]
        self._seen += len(new)
        self._held += new
        end = self._held.rfind("\n", 0, -1) + 1
        last = self._held[end:]
        if last.endswith("\n") and not last.startswith("{"):
            end = len(self._held)
        sys.stdout.write(self._held[:end])
        sys.stdout.flush()
        self._held = self._held[end:]

    def last_line(self) -> str:
        """The line held back at the end of the log, or ''."""
        return self._held.strip()


def _result(details: "JobDetails", last_line: str) -> Result:
    """The JSON object of the job's last line, overruled by how the job ended."""
    try:
        own = json.loads(last_line)
    except ValueError:
        own = None
    if not isinstance(own, dict):
        sys.stdout.write(f"{last_line}\n" if last_line else "")
        own = {}
    ending = _ending(details)
    if "error" in ending:
        say(f"{details.submission_id} {ending['state']}: {ending['error']}")
    return {**own, **ending, "job": details.submission_id}


def _ending(details: "JobDetails") -> Result:
    state = str(details.status).lower()
    code = details.driver_exit_code
    if state == "stopped":
        return {"state": state, "exit_code": 1, "error": "stopped; the same command resumes it"}
    if code is None:
        return {"state": state, "exit_code": 1, "error": details.message or "the job could not be started"}
    if code < 0:
        return {"state": state, "exit_code": 128 - code, "error": f"killed by signal {-code}"}
    return {"exit_code": code}
