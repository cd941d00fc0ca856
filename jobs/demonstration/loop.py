"""The demo's loop: synthetic images, a training, an evaluation, a scoring run."""

import time
from pathlib import Path
from typing import Any, Final

from jobs.console.command import Result
from jobs.console.output import say
from jobs.evaluation.evaluate import evaluate_bundle
from jobs.evaluation.options import EvaluateOptions
from jobs.ray_runtime.session import SessionAhead
from jobs.scoring.options import ScoreOptions
from jobs.scoring.run import score
from jobs.training.train import make_request, train
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.phantoms.data_sets import write_archive, write_labelled

IMAGE_SIZE: Final = 48
# The longer side in pixels, from and to.
PICTURE_SIZE: Final = (96, 128)
PATIENTS_PER_CLASS: Final = 80
IMAGES_PER_PATIENT: Final = 3
ARCHIVE_IMAGES: Final = 120
EPOCHS: Final = 12
PATIENCE: Final = 3
# A network that starts from nothing learns faster at this rate, and from images that vary less.
LEARNING_RATE: Final = 2e-3
AUGMENT: Final = "light"
ROBUSTNESS_IMAGES: Final = 32


def run_loop(folder: Path, workers: int, address: str | None) -> Result:
    """Train on synthetic X-rays, evaluate the bundle and score an archive with it, all in `folder`.

    Returns the command's result, with the paths of all that was made.
    """
    started = time.monotonic()
    with SessionAhead(address, num_cpus=None) as session:
        _make_images(folder)
        session.wait()
        trained = _train(folder, workers)
        measured = _evaluate(folder, trained["bundle"])
        scored = _score(folder, trained["bundle"])
    return _summary(folder, trained, measured, scored, time.monotonic() - started)


def _make_images(folder: Path) -> None:
    say("1/4 making synthetic X-rays")
    write_labelled(folder / "data", PATIENTS_PER_CLASS, IMAGES_PER_PATIENT, seed=1, size=PICTURE_SIZE)
    write_archive(folder / "archive", ARCHIVE_IMAGES, seed=2, broken=True, size=PICTURE_SIZE)


def _train(folder: Path, workers: int) -> dict[str, Any]:
    say(f"2/4 training a ResNet-18 from scratch with {workers} workers")
    request = make_request(
        data=str(folder / "data"),
        models=str(folder / "models"),
        network="resnet18",
        weights="none",
        workers=workers,
        epochs=EPOCHS,
        patience=PATIENCE,
        learning_rate=LEARNING_RATE,
        augment=AUGMENT,
        # Timing bfloat16 too would take longer than it gains in so short a training.
        precision="float32",
        image_size=IMAGE_SIZE,
        data_set="synthetic",
        int8=False,
    )
    return train(request)


def _evaluate(folder: Path, bundle: str) -> dict[str, Any]:
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
    say(f"4/4 scoring an archive of {ARCHIVE_IMAGES} images, some of them broken")
    options = ScoreOptions((str(folder / "archive"),), bundle)
    return score(str(folder / "results"), options, open_bundle(bundle))


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
