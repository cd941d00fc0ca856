"""`pneumonia demo`: the whole loop on synthetic X-rays, nothing needed: train, evaluate, score."""

import shutil
import time
from pathlib import Path
from typing import Any, Final

import click

from jobs.console.command import Result, job_command, run_command
from jobs.console.options import LocationType, address_option
from jobs.console.output import say
from jobs.scoring.options import ScoreOptions
from pneumonia_core.errors import InvalidInput

IMAGE_SIZE: Final = 64
PATIENTS_PER_CLASS: Final = 120
IMAGES_PER_PATIENT: Final = 3
ARCHIVE_IMAGES: Final = 240
EPOCHS: Final = 20
ROBUSTNESS_IMAGES: Final = 80
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
    from jobs.ray_runtime.session import ray_session

    started = time.monotonic()
    folder = _fresh_folder(workdir)
    with ray_session(address):
        _make_images(folder)
        trained = _train(folder, workers)
        measured = _evaluate(folder, trained["bundle"])
        scored = _score(folder, trained["bundle"])
    return _summary(folder, trained, measured, scored, time.monotonic() - started)


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


def _make_images(folder: Path) -> None:
    from pneumonia_core.phantoms.data_sets import write_archive, write_labelled

    say("1/4 making synthetic X-rays")
    write_labelled(folder / "data", PATIENTS_PER_CLASS, IMAGES_PER_PATIENT, seed=1)
    write_archive(folder / "archive", ARCHIVE_IMAGES, seed=2, broken=True)


def _train(folder: Path, workers: int) -> dict[str, Any]:
    from jobs.training.train import make_request, train

    say(f"2/4 training a ResNet-18 from scratch with {workers} workers")
    request = make_request(
        data=str(folder / "data"),
        models=str(folder / "models"),
        network="resnet18",
        weights="none",
        workers=workers,
        epochs=EPOCHS,
        image_size=IMAGE_SIZE,
        data_set="synthetic",
    )
    return train(request)


def _evaluate(folder: Path, bundle: str) -> dict[str, Any]:
    from jobs.evaluation.evaluate import evaluate_bundle
    from jobs.evaluation.options import EvaluateOptions

    say("3/4 evaluating it on patients that it has not seen")
    return evaluate_bundle(
        EvaluateOptions(
            model=bundle,
            data=str(folder / "data"),
            output=str(folder / "evaluation"),
            robustness=ROBUSTNESS_IMAGES,
        )
    )


def _score(folder: Path, bundle: str) -> dict[str, Any]:
    from jobs.scoring.run import score

    say(f"4/4 scoring an archive of {ARCHIVE_IMAGES} images, some of them broken")
    return score(str(folder / "results"), ScoreOptions((str(folder / "archive"),), bundle))


def _summary(
    folder: Path, trained: dict[str, Any], measured: dict[str, Any], scored: dict[str, Any], seconds: float
) -> Result:
    say("")
    say(f"AUROC on the synthetic test set, pneumonia against normal: {measured['pneumonia_auroc']:.3f}")
    say(f"the table (Delta, plain Parquet):  {folder / 'results' / 'scores'}")
    say(f"the run's page:                    {scored['page'].removeprefix('file://')}")
    say(f"the evaluation's page:             {measured['page']}")
    say(f"the model's bundle and its card:   {trained['bundle']}")
    return {
        "state": "done",
        "workdir": str(folder),
        "bundle": trained["bundle"],
        "table": str(folder / "results" / "scores"),
        "pages": [scored["page"].removeprefix("file://"), measured["page"]],
        "pneumonia_auroc": measured["pneumonia_auroc"],
        "scored": scored["scored"],
        "rejected": scored["rejected"],
        "seconds": round(seconds, 1),
    }


if __name__ == "__main__":
    run_command(command)
