"""Measure a bundle on a labelled set: its images go through the scoring pipeline like any archive's."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from jobs.config import Result, job_command, run_command
from jobs.progress import say
from pneumonia_core.errors import InvalidInput, PneumoniaError

if TYPE_CHECKING:
    from jobs.run import Order
    from pneumonia_core.bundle import Bundle
    from pneumonia_core.places import Place

MANIFEST: Final = "images.parquet"


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
@click.option(
    "--robustness",
    type=click.IntRange(min=0),
    default=400,
    show_default=True,
    help="Images to score again re-encoded, blurred, brightened, rotated and reshaped; 0 for none.",
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
    robustness: int = 400,
    address: str | None = None,
    num_cpus: int | None = None,
) -> Result:
    """Measure as the command does, in the Ray session that is open or in one of its own."""
    from jobs.session import ray_session
    from jobs.work import Settings
    from pneumonia_core.bundle import open_bundle

    images = _images_of_split(data, split)
    folder = Path(output).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot create this folder ({error.strerror}).") from error
    with ray_session(address, num_cpus):
        rows = _score(images, model, folder, engine, precision, Settings(address=address, num_cpus=num_cpus))
        modes = _colour_modes(folder)
        measured = _measured(images, rows)
        bundle = open_bundle(model)
        evaluation = _measure(measured, modes, bundle, split, prevalence, bootstrap)
        evaluation["robustness"] = _robustness(measured, bundle, robustness, precision, folder, bootstrap)
    evaluation["rejected"] = _rejected(rows)
    return _report(evaluation, bundle, data, split, folder)


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

    from jobs.score import make_order, score_archives
    from pneumonia_core.places import open_place
    from pneumonia_core.results import find_table

    uris = [open_place(image.path).uri for image in images]
    manifest = folder / MANIFEST
    pq.write_table(pa.table({"uri": uris}), manifest)
    order = make_order(
        (str(manifest),), model, engine=engine, precision=precision, rescore="all", rules=_rules()
    )
    results = results_of(folder, order, uris)
    score_archives(results, order, settings)
    table = find_table(results)
    assert table is not None
    rows = table.to_pyarrow_dataset().to_table(filter=pc.field("model_id") == order.model_id)
    # Of an image that changed since an earlier evaluation, the newest row counts.
    newest = {row["image_uri"]: row for row in rows.sort_by("scored_at").to_pylist()}
    return {uri: newest[uri] for uri in uris}


def results_of(folder: Path, order: "Order", uris: list[str]) -> "Place":
    """Where the scores of these images by this model and engine are, and of nothing else.

    What was scored otherwise is not scored, and a run that was killed goes on with the images that it has listed: those
    of another split must not come upon it.
    """
    from pneumonia_core.places import open_place

    images = hashlib.sha256("\n".join(uris).encode()).hexdigest()[:8]
    name = f"{order.model_id}-{order.engine}-{order.precision}-{images}"
    return open_place(str(folder / "results")).child(name)


def _rules() -> Any:
    from pneumonia_core.manifests import ListingRules

    # The manifest is ours: it names the images of the labelled set, wherever they are.
    return ListingRules(allow_prefixes=("/",))


def _colour_modes(folder: Path) -> dict[str, str]:
    """The colour mode of each image of the manifest that could be read, by its URI."""
    from jobs.surveyed import survey_listing
    from pneumonia_core.listing import Lister
    from pneumonia_core.places import open_place

    with Lister([open_place(str(folder / MANIFEST)).uri], _rules()) as lister:
        while not lister.wait(60):
            continue
        surveyed = survey_listing(lister.take(), lister.listed)
    modes = zip(surveyed["image_uri"].to_pylist(), surveyed["mode"].to_pylist(), strict=True)
    return {uri: mode for uri, mode in modes if mode is not None}


@dataclass(frozen=True)
class Measured:
    """The labelled images that have a score, in one order: truth, and their rows of the table."""

    labels: list[int]
    patients: list[str]
    rows: list[dict[str, Any]]


def _measured(images: list[Any], rows: dict[str, Any]) -> Measured:
    from pneumonia_core.places import open_place

    found = [(image, rows[open_place(image.path).uri]) for image in images]
    scored = [(image, row) for image, row in found if row["status"] == "scored"]
    if not scored:
        raise PneumoniaError(
            "none of the images could be scored: there is nothing to measure. See the run's page."
        )
    return Measured(
        [image.label for image, _ in scored],
        [image.patient_id for image, _ in scored],
        [row for _, row in scored],
    )


def _rejected(rows: dict[str, Any]) -> dict[str, int]:
    reasons = Counter(row["reject_reason"] for row in rows.values() if row["status"] == "rejected")
    return dict(sorted(reasons.items()))


def _measure(
    measured: Measured,
    modes: dict[str, str],
    bundle: "Bundle",
    split: str,
    prevalence: float | None,
    bootstrap: int,
) -> dict[str, Any]:
    from pneumonia_core.labels import CLASSES
    from pneumonia_core.metrics import evaluate
    from pneumonia_core.subgroups import size_groups, subgroups

    rows = measured.rows
    probabilities = [[row[f"p_{name}"] for name in CLASSES] for row in rows]
    evaluation = evaluate(
        measured.labels,
        probabilities,
        measured.patients,
        bundle.thresholds,
        prevalence=prevalence,
        calibrated_at=_prevalence_of_validation(bundle.path),
        bootstrap=bootstrap,
    )
    factors = {
        "image size": size_groups([row["width"] for row in rows], [row["height"] for row in rows]),
        "colour mode": [modes.get(row["image_uri"], "unknown") for row in rows],
    }
    parts = subgroups(
        measured.labels, probabilities, measured.patients, bundle.thresholds, factors, bootstrap
    )
    return {
        **evaluation,
        "model_id": bundle.model_id,
        "split": split,
        "engine": rows[0]["engine"],
        "subgroups": parts,
        **_domain(bundle, rows),
    }


def _domain(bundle: "Bundle", rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the scored images are unlike the training data, where the bundle can tell."""
    if bundle.domain is None:
        return {}
    flagged = sum(row["in_domain"] is False for row in rows)
    return {"domain": {"threshold": bundle.domain.threshold, "flagged_share": flagged / len(rows)}}


def _prevalence_of_validation(bundle: Path) -> float | None:
    """The share of pneumonia on which the bundle's probabilities were calibrated, where it says so."""
    document = bundle / "evaluation.json"
    if not document.is_file():
        return None
    share = json.loads(document.read_text(encoding="utf-8"))["prevalence"]["evaluated"]
    return float(share) if 0 < share < 1 else None


def _robustness(
    measured: Measured, bundle: "Bundle", count: int, precision: str, folder: Path, bootstrap: int
) -> dict[str, Any] | None:
    from jobs.perturbed import measure_robustness
    from jobs.work import ray_errors_explained

    if not count:
        return None
    with ray_errors_explained():
        return measure_robustness(
            measured.rows,
            measured.labels,
            measured.patients,
            count,
            bundle,
            precision,
            str(folder),
            bootstrap,
        )


def _report(evaluation: dict[str, Any], bundle: "Bundle", data: str, split: str, folder: Path) -> Result:
    from pneumonia_core.pages.evaluation import evaluation_page

    domain = evaluation.get("domain")
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
            **({"out of domain": f"{domain['flagged_share']:.1%}"} if domain else {}),
        },
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n", encoding="utf-8")
    page = folder / "evaluation.html"
    page.write_text(evaluation_page(evaluation, f"Evaluation on {split}", facts), encoding="utf-8")
    figures = headline(evaluation)
    say(", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None))
    _say_robustness(evaluation["robustness"])
    say(f"the evaluation's page: {page}")
    return {"state": "done", "evaluation": str(folder / "evaluation.json"), "page": str(page), **figures}


def _say_robustness(table: dict[str, Any] | None) -> None:
    """For each perturbation one line: how far AUROC and scores move."""
    if table is None:
        return
    say(f"on {table['images']} images again, AUROC {_signed(table['auroc']['value'], '')}; moved by")
    for row in table["rows"]:
        say(
            f"  {row['label']:<46} AUROC {_signed(row['auroc_change']['value'])}   |Δp| mean "
            f"{row['mean_change']:.3f}, 99 % {row['p99_change']:.3f}   classes apart "
            f"{_signed(row['shift_difference'])}"
        )


def _signed(value: float | None, sign: str = "+") -> str:
    return "–" if value is None else f"{value:{sign}.3f}"


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
