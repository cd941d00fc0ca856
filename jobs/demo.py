"""`pneumonia demo`: the whole loop on synthetic X-rays, nothing needed: train, evaluate, score."""

import shutil
from pathlib import Path
from typing import Final

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType, address_option
from pneumonia_core.errors import InvalidInput

_MARK: Final = ".pneumonia-demo"


@job_command("demo")
@click.option(
    "--workdir",
    type=LocationType(),
    default="pneumonia-demo",
    show_default=True,
    help="Folder for all that the demo makes.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Training workers.")
@address_option
def command(workdir: str, workers: int, address: str | None) -> Result:
    """Train on synthetic X-rays with two workers, evaluate, and score an archive with broken files in it."""
    # Here, because `pneumonia demo --help` needs neither Ray nor matplotlib.
    from jobs.demonstration.loop import run_loop

    return run_loop(_fresh_folder(workdir), workers, address)


def _fresh_folder(workdir: str) -> Path:
    """An empty folder; what an earlier demo left in it is removed, and nothing else."""
    folder = Path(workdir).absolute()
    if folder.exists():
        if not (folder / _MARK).exists() and any(folder.iterdir()):
            raise InvalidInput(f"{workdir} has files in it that no demo made. Give another --workdir.")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        (folder / _MARK).touch()
    except OSError as error:
        raise InvalidInput(f"{workdir}: cannot create this folder ({error.strerror}).") from error
    return folder


if __name__ == "__main__":
    run_command(command)
