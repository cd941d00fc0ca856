"""`pneumonia submit -- JOB ARGS…`: any other command as a job on a Ray cluster."""

from typing import Any

import click

from jobs.config import job_command, run_command
from jobs.progress import say
from pneumonia_core.errors import InvalidInput

INTERRUPTED = 130  # what a shell shows for a command ended by Ctrl-C


def _read_job(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Usage, help and --print-config of the job are answered here, as the job itself would."""
    from cluster.arguments import read_command

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
@click.option(
    "--address",
    metavar="URL",
    help="The dashboard of the cluster. [default: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265]",
)
@click.option("--no-wait", is_flag=True, help="Submit, print the job's id and leave.")
def command(job: tuple[str, ...], address: str | None, no_wait: bool) -> dict[str, Any]:
    """Run a job on a Ray cluster: pneumonia submit -- score s3://bucket/xrays --model … --results …

    Sends this installation's code along, follows the log, and ends with the job's result and exit code.
    The token of the cluster is taken from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
    """
    from cluster.submit import follow, submit

    client, job_id = submit(job, address)
    say(f"submitted {job_id} to {client.get_address()}")
    if no_wait:
        return {"state": "submitted", "job": job_id}
    try:
        return follow(client, job_id)
    except KeyboardInterrupt:
        say(f"\n{job_id} goes on without you. To stop it: pneumonia jobs stop {job_id}")
        return {"state": "running", "job": job_id, "exit_code": INTERRUPTED}


if __name__ == "__main__":
    run_command(command)
