"""`pneumonia jobs list|stop`: the jobs of a Ray cluster."""

from typing import TYPE_CHECKING, Any

import click

from jobs.config import job_command, run_command
from jobs.progress import printable, say

if TYPE_CHECKING:
    from cluster.jobs import Job

_address = click.option(
    "--address",
    metavar="URL",
    help="The dashboard of the cluster. [default: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265]",
)


@click.group("jobs")
def command() -> None:
    """List or stop the jobs of a Ray cluster."""


@job_command("list")
@_address
@click.option("--json", "as_json", is_flag=True, help="The jobs as JSON, instead of a table.")
def list_command(address: str | None, as_json: bool) -> dict[str, Any]:
    """The jobs submitted to the cluster, the newest first."""
    from cluster.jobs import list_jobs

    jobs = list_jobs(address)
    if as_json:
        return {"jobs": [job.as_dict() for job in jobs]}
    for line in _table(jobs):
        print(line)
    return {"jobs": len(jobs)}


@job_command("stop", short_help="Stop a job; the same command goes on from there later.")
@click.argument("job_id", metavar="ID")
@_address
def stop_command(job_id: str, address: str | None) -> dict[str, Any]:
    """Stop a job: what it has at hand is finished, and the same command goes on from there later."""
    from cluster.jobs import stop_job

    job = stop_job(address, job_id)
    say(f"{job.id} is {job.state}")
    return {"job": job.id, "state": job.state}


command.add_command(list_command)
command.add_command(stop_command)


def _table(jobs: list["Job"]) -> list[str]:
    head = ("ID", "STATE", "EXIT", "STARTED (UTC)", "DURATION", "COMMAND")
    rows = [head, *(_row(job) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def _row(job: "Job") -> tuple[str, ...]:
    started = (job.started or "")[:19].replace("T", " ")
    exit_code = "" if job.exit_code is None else str(job.exit_code)
    return (job.id, job.state, exit_code, started, _duration(job.seconds), printable(job.entrypoint))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


if __name__ == "__main__":
    run_command(command)
