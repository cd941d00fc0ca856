"""Run one of the project's jobs on a Ray cluster through the Jobs API, and stay with it until it ends."""

import asyncio
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.client import answers_expected, connect, first_line
from cluster.job_arguments import job_arguments, read_command
from cluster.source_package import copy_code
from jobs.console.output import say
from pneumonia_core.errors import PneumoniaError

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient


# A job that is asked to stop finishes its parts at hand in up to 25 s; Ray's own patience is 3 s.
STOP_WAIT_S = 30
NODES_WAIT_S = 20.0
LOST_CONTACT_S = 60.0
POLL_S = 1.0


def submit(words: Sequence[str], address: str | None) -> tuple["JobSubmissionClient", str]:
    """Submit the job `words` (a subcommand and its arguments); the cluster's client and the job's id.

    Raises InvalidInput for a wrong command, a location that the cluster cannot see, or a cluster that
    cannot be reached or refuses the token; PneumoniaError where it does not take the job.
    """
    context = read_command(words)
    client = connect(address)
    with (
        answers_expected(client, "did not take the job"),
        tempfile.TemporaryDirectory(prefix="pneumonia-code-") as folder,
    ):
        here = runs_on_this_machine(client)
        arguments = job_arguments(context, here)
        # `ray start` may run outside an activated environment, where `python` is another one.
        python = sys.executable if here else "python"
        copy_code(Path(folder))
        job_id = client.submit_job(
            entrypoint=shlex.join([python, "-m", "jobs.cli", *arguments]),
            runtime_env={
                "working_dir": folder,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
    return client, job_id


def runs_on_this_machine(client: "JobSubmissionClient") -> bool:
    """Whether the head runs on this machine and file system: its session folder is here.

    The address cannot tell: behind 127.0.0.1 there may be a tunnel to a cluster far away.
    """
    deadline = time.monotonic() + NODES_WAIT_S
    while time.monotonic() < deadline:
        answer = client._do_request("GET", "/nodes?view=summary")
        nodes = answer.json()["data"]["summary"] if answer.status_code == 200 else []
        for node in nodes:
            raylet = node.get("raylet", {})
            if raylet.get("isHeadNode") and raylet.get("sessionDir"):
                return Path(raylet["sessionDir"]).is_dir()
        time.sleep(0.5)  # a head that has just started does not know its nodes yet
    return False


def follow(client: "JobSubmissionClient", job_id: str) -> dict[str, Any]:
    """Write the job's log to stdout as it grows; the job's own result, with its exit code, once it has ended.

    Reconnects when the connection breaks, and goes on where it was. Raises PneumoniaError when the
    cluster stays away; a KeyboardInterrupt leaves the job running.
    """
    import aiohttp
    from ray.exceptions import AuthenticationError

    log = _Log()
    while True:
        try:
            details = asyncio.run(_watch(client, job_id, log))
            if details is not None:
                log.show(client.get_job_logs(job_id), 0)
                return _result(details, log.last_line())
        except BrokenPipeError:  # not the cluster: whoever read our output has left
            raise
        except (OSError, RuntimeError, aiohttp.ClientError, AuthenticationError) as error:
            if time.monotonic() - log.last_contact > LOST_CONTACT_S:
                raise PneumoniaError(
                    f"no news of {job_id} from {client.get_address()} for {LOST_CONTACT_S:.0f} s: {first_line(error)}. "
                    "The job may still be running: `pneumonia jobs list` shows it once the cluster is back."
                ) from error
        time.sleep(POLL_S)


async def _watch(client: "JobSubmissionClient", job_id: str, log: "_Log") -> "JobDetails | None":
    """Show the log while it grows; the job's details once it has ended, None where the connection has."""
    tail = asyncio.create_task(log.tail(client, job_id))
    try:
        while not tail.done():
            # The end of the tail comes seconds after the end of the job.
            await asyncio.wait({tail}, timeout=POLL_S)
            details = await asyncio.to_thread(client.get_job_info, job_id)
            log.last_contact = time.monotonic()
            if details.status.is_terminal():
                return details
        return tail.result()
    finally:
        tail.cancel()
        await asyncio.gather(tail, return_exceptions=True)


class _Log:
    """A job's log on its way to stdout, whole lines; a JSON line is held back while it may be the last.

    `last_contact` is when the cluster last had news of the job.
    """

    def __init__(self) -> None:
        self.last_contact = time.monotonic()
        self._seen = 0
        self._held = ""

    async def tail(self, client: "JobSubmissionClient", job_id: str) -> None:
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


def _result(details: "JobDetails", last_line: str) -> dict[str, Any]:
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


def _ending(details: "JobDetails") -> dict[str, Any]:
    state = str(details.status).lower()
    code = details.driver_exit_code
    if state == "stopped":
        return {"state": state, "exit_code": 1, "error": "stopped; the same command goes on from there"}
    if code is None:
        return {"state": state, "exit_code": 1, "error": details.message or "the job could not be started"}
    if code < 0:
        return {"state": state, "exit_code": 128 - code, "error": f"killed by signal {-code}"}
    return {"exit_code": code}
