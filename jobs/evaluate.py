"""Measure a bundle on a labelled set: its images go through the scoring pipeline like any archive's."""

import json
from pathlib import Path
from typing import Any

import click

from jobs.config import Result, job_command, run_command
from jobs.progress import say
from pneumonia_core.errors import InvalidInput, PneumoniaError


@job_command("evaluate")
@click.option("--model", required=True, help="Bundle to measure.")
@click.option(
    "--data",
    required=True,
    help="Labelled set: a Kermany folder, or a table with uri, label, patient_id, split.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train", "val"]),
    default="test",
    show_default=True,
    help="`validation` are the patients that training holds back.",
)
@click.option("--output", required=True, help="Folder for evaluation.json, evaluation.html and the scores.")
@click.option("--engine", default="auto", show_default=True)
@click.option("--precision", type=click.Choice(["auto", "float32"]), default="auto", show_default=True)
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, True, True),
    help="Share of pneumonia to correct the scores to.",
)
@click.option(
    "--bootstrap", type=click.IntRange(min=10), default=1000, show_default=True, help="Resamples of patients."
)
@click.option("--address", help="Ray cluster. Default: RAY_ADDRESS, else Ray starts on this machine.")
@click.option("--num-cpus", type=click.IntRange(min=1), help="CPUs of the Ray started on this machine.")
def command(**options: Any) -> Result:
    """Score the labelled images of DATA and measure the scores: JSON and one HTML page."""
    return evaluate_bundle(**options)


def evaluate_bundle(
    model: str,
    data: str,
    output: str,
    split: str = "test",
    engine: str = "auto",
    precision: str = "auto",
    prevalence: float | None = None,
    bootstrap: int = 1000,
    address: str | None = None,
    num_cpus: int | None = None,
) -> Result:
    """Measure as the command does, in the Ray session that is open or in one of its own."""
    from jobs.work import Settings

    images = _images_of_split(data, split)
    folder = Path(output).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot create this folder ({error.strerror}).") from error
    scored = _score(images, model, folder, engine, precision, Settings(address=address, num_cpus=num_cpus))
    evaluation = _measure(images, scored, model, split, prevalence, bootstrap)
    return _report(evaluation, model, data, split, folder)


def _images_of_split(data: str, split: str) -> list[Any]:
    from pneumonia_core.labels import read_labelled, split_training

    images = read_labelled(data)
    chosen = split_training(images)[1] if split == "validation" else [i for i in images if i.split == split]
    if not chosen:
        present = ", ".join(sorted({image.split for image in images}))
        raise InvalidInput(f"{data} has no {split} images; it has {present}. Choose one with --split.")
    return chosen


def _score(
    images: list[Any], model: str, folder: Path, engine: str, precision: str, settings: Any
) -> dict[str, Any]:
    """The table's rows by image URI, after scoring what it does not have yet."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from jobs.score import CHUNK_SIZE, make_order, score_archives
    from pneumonia_core.manifests import ListingRules
    from pneumonia_core.places import open_place
    from pneumonia_core.results import find_table

    uris = [open_place(image.path).uri for image in images]
    manifest = folder / "images.parquet"
    pq.write_table(pa.table({"uri": uris}), manifest)
    # The manifest is ours: it names the images of the labelled set, wherever they are.
    rules = ListingRules(allow_prefixes=("/",))
    order = make_order(
        (str(manifest),), model, engine, precision, None, False, "all", None, CHUNK_SIZE, rules
    )
    results = open_place(str(folder / "results"))
    score_archives(results, order, settings)
    table = find_table(results)
    assert table is not None
    rows = table.to_pyarrow_dataset().to_table(filter=pc.field("model_id") == order.model_id)
    # Of an image that changed since an earlier evaluation, the newest row counts.
    return {row["image_uri"]: row for row in rows.sort_by("scored_at").to_pylist()}


def _measure(
    images: list[Any], rows: dict[str, Any], model: str, split: str, prevalence: float | None, bootstrap: int
) -> dict[str, Any]:
    from pneumonia_core.bundle import open_bundle
    from pneumonia_core.labels import CLASSES
    from pneumonia_core.metrics import evaluate
    from pneumonia_core.places import open_place

    found = [(image, rows[open_place(image.path).uri]) for image in images]
    scored = [(image, row) for image, row in found if row["status"] == "scored"]
    if not scored:
        raise PneumoniaError(
            "none of the images could be scored: there is nothing to measure. See the run's page."
        )
    bundle = open_bundle(model)
    evaluation = evaluate(
        [image.label for image, _ in scored],
        [[row[f"p_{name}"] for name in CLASSES] for _, row in scored],
        [image.patient_id for image, _ in scored],
        bundle.thresholds,
        prevalence=prevalence,
        bootstrap=bootstrap,
    )
    rejected = [row["reject_reason"] for _, row in found if row["status"] == "rejected"]
    return {
        **evaluation,
        "model_id": bundle.model_id,
        "split": split,
        "engine": scored[0][1]["engine"],
        "rejected": {reason: rejected.count(reason) for reason in sorted(set(rejected))},
    }


def _report(evaluation: dict[str, Any], model: str, data: str, split: str, folder: Path) -> Result:
    from pneumonia_core.bundle import open_bundle
    from pneumonia_core.pages.evaluation import evaluation_page

    bundle = open_bundle(model)
    facts = {
        "Model": {
            "network": bundle.facts.network,
            "model_id": bundle.model_id,
            "image size": f"{bundle.image_size} px",
            "engine": evaluation["engine"],
        },
        "Data": {
            "data set": data,
            "split": split,
            "images": evaluation["images"],
            "patients": evaluation["patients"],
            "could not be scored": sum(evaluation["rejected"].values()),
        },
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    page = folder / "evaluation.html"
    page.write_text(evaluation_page(evaluation, f"Evaluation on {split}", facts), encoding="utf-8")
    figures = headline(evaluation)
    say(", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None))
    say(f"the evaluation's page: {page}")
    return {"state": "done", "evaluation": str(folder / "evaluation.json"), "page": str(page), **figures}


def headline(evaluation: dict[str, Any]) -> dict[str, float | None]:
    """The four figures that a reader looks for first."""
    tasks = evaluation["tasks"]
    return {
        "pneumonia_auroc": tasks["pneumonia_vs_normal"]["auroc"]["value"],
        "accuracy": tasks["pneumonia_vs_normal"]["accuracy"]["value"],
        "bacterial_viral_auroc": tasks["bacterial_vs_viral"]["auroc"]["value"],
        "three_class_accuracy": evaluation["three_class"]["accuracy"]["value"],
    }


if __name__ == "__main__":
    run_command(command)
