"""Submits a job to a Ray cluster through the Jobs API, with this installation's code."""

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cluster.client import request_errors_explained
from cluster.job_arguments import job_arguments
from cluster.source_package import copy_code

if TYPE_CHECKING:
    from cluster.time_limited_client import TimeLimitedClient


# A job that is asked to stop finishes its current chunks in up to 25 s; Ray's own limit is 3 s.
STOP_WAIT_S: Final = 30


def submit(client: "TimeLimitedClient", job: click.Context) -> str:
    """Submit the job's command with its options; the id of the submitted job.

    Raises InvalidInput for a location that the cluster cannot see, PneumoniaError where the cluster does not
    take the job.
    """
    with (
        request_errors_explained(client, "did not take the job"),
        tempfile.TemporaryDirectory(prefix="pneumonia-code-") as folder,
    ):
        here = client.runs_on_this_machine()
        arguments = job_arguments(job, here)
        # `ray start` may run outside an activated environment, where `python` is another interpreter.
        python = sys.executable if here else "python"
        copy_code(Path(folder))
        return client.submit_job(
            entrypoint=shlex.join([python, "-m", "jobs.cli", *arguments]),
            runtime_env={
                "working_dir": folder,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
        )
