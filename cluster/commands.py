"""The commands of a Ray cluster: `pneumonia submit -- JOB ARGS…` and `pneumonia jobs list|stop`.

`cluster.client.connect` imports Ray, when a command runs: help is instant.
"""

from dataclasses import asdict
from typing import Final

import click

from cluster.client import connect
from cluster.follow import follow
from cluster.job_arguments import read_command
from cluster.job_list import Job, list_jobs, stop_job
from cluster.submit import submit
from jobs.console.command import Result, job_command
from jobs.console.output import aligned_columns, say, show
from pneumonia_core.errors import InvalidInput
from pneumonia_core.system.printable import printable

INTERRUPTED: Final = 130  # what a shell shows for a command ended by Ctrl-C
_HEADER: Final = ("ID", "STATE", "EXIT", "STARTED (UTC)", "DURATION", "COMMAND")

_dashboard_option = click.option(
    "--address",
    metavar="URL",
    help="The dashboard of the cluster. [default: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265]",
)


def _read_job(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Check the job's usage here; its help and --print-config are answered here as well."""
    try:
        job = read_command(words)
    except InvalidInput as error:
        raise click.UsageError(str(error), context) from None
    if job.params.get("print_config"):
        job.command.invoke(job)
        context.exit()
    return words


@job_command("submit", context_settings={"allow_interspersed_args": False})
@click.argument(
    "job", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- JOB [ARGS]...", callback=_read_job
)
@_dashboard_option
@click.option("--no-wait", is_flag=True, help="Submit, print the job's id and leave.")
def submit_command(job: tuple[str, ...], address: str | None, no_wait: bool) -> Result:
    """Run a job on a Ray cluster: pneumonia submit -- score s3://bucket/xrays --model … --results …

    Sends this installation's code along, follows the log, and ends with the job's result and exit code.
    The token of the cluster is taken from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
    """
    client = connect(address)
    job_id = submit(client, read_command(job))
    say(f"submitted {job_id} to {client.get_address()}")
    if no_wait:
        return {"state": "submitted", "job": job_id}
    try:
        return follow(client, job_id)
    except KeyboardInterrupt:
        say("")  # below the ^C of the terminal
        say(f"{job_id} goes on without you. To stop it: pneumonia jobs stop {job_id}")
        return {"state": "running", "job": job_id, "exit_code": INTERRUPTED}


@click.group("jobs")
def jobs_command() -> None:
    """List or stop the jobs of a Ray cluster."""


@job_command("list")
@_dashboard_option
@click.option("--json", "as_json", is_flag=True, help="The jobs as JSON, instead of a table.")
def list_command(address: str | None, as_json: bool) -> Result:
    """The jobs submitted to the cluster, the newest first."""
    jobs = list_jobs(connect(address))
    if as_json:
        return {"jobs": [asdict(job) for job in jobs]}
    show(aligned_columns([_HEADER, *map(_row, jobs)]))
    return {"jobs": len(jobs)}


@job_command("stop", short_help="Stop a job; the same command resumes it later.")
@click.argument("job_id", metavar="ID")
@_dashboard_option
def stop_command(job_id: str, address: str | None) -> Result:
    """Stop a job: it finishes its current chunks, and the same command resumes it later."""
    job = stop_job(connect(address), job_id)
    say(f"{job.id} is {job.state}")
    return {"job": job.id, "state": job.state}


jobs_command.add_command(list_command)
jobs_command.add_command(stop_command)


def _row(job: Job) -> tuple[str, ...]:
    started = (job.started or "")[:19].replace("T", " ")
    exit_code = "" if job.exit_code is None else str(job.exit_code)
    return (job.id, job.state, exit_code, started, _duration(job.seconds), printable(job.entrypoint))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
