"""Measure a bundle on a labelled set: its images go through the scoring pipeline like any archive's."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.console.command import Result
from jobs.console.output import say
from pneumonia_core.errors import InvalidInput

if TYPE_CHECKING:
    from jobs.evaluation.labelled_scores import ScoredSet
    from pneumonia_core.bundles.bundle import Bundle
    from pneumonia_core.datasets.kermany import LabelledImage


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
    from jobs.evaluation.labelled_scores import (
        colour_modes,
        measured_images,
        order_scores,
        rejected_images,
        score_labelled,
    )
    from jobs.ray_runtime.session import ray_errors_explained, ray_session
    from jobs.scoring.context import ExecutionOptions
    from pneumonia_core.bundles.bundle import open_bundle

    images = _images_of_split(data, split)
    folder = _output_folder(output)
    order = order_scores(images, model, folder, engine, precision)
    bundle = open_bundle(model)
    with ray_session(address, num_cpus):
        rows = score_labelled(images, order, folder, ExecutionOptions(address=address, num_cpus=num_cpus))
        measured = measured_images(images, rows)
        with ray_errors_explained():
            modes = colour_modes(images, folder)
        evaluation = _measure(measured, modes, bundle, split, prevalence, bootstrap)
        evaluation["robustness"] = _robustness(measured, bundle, robustness, precision, folder, bootstrap)
    evaluation["rejected"] = rejected_images(rows)
    return _report(evaluation, bundle, data, split, folder)


def _images_of_split(data: str, split: str) -> list["LabelledImage"]:
    from pneumonia_core.datasets.labelled import read_labelled, split_training

    images = read_labelled(data)
    chosen = split_training(images)[1] if split == "validation" else [i for i in images if i.split == split]
    if not chosen:
        present = ", ".join(sorted({image.split for image in images}))
        raise InvalidInput(f"{data} has no {split} images; it has {present}. Choose one with --split.")
    return chosen


def _output_folder(output: str) -> Path:
    if "://" in output:
        raise InvalidInput(f"--output {output}: give a folder on this machine, or one that is mounted here.")
    folder = Path(output).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{output}: cannot create this folder ({error.strerror}).") from error
    return folder


def _measure(
    measured: "ScoredSet",
    modes: dict[str, str],
    bundle: "Bundle",
    split: str,
    prevalence: float | None,
    bootstrap: int,
) -> dict[str, Any]:
    from pneumonia_core.evaluation.evaluate import evaluate
    from pneumonia_core.evaluation.subgroups import size_groups, subgroups
    from pneumonia_core.findings import CLASSES

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
    measured: "ScoredSet", bundle: "Bundle", count: int, precision: str, folder: Path, bootstrap: int
) -> dict[str, Any] | None:
    from jobs.evaluation.perturbed_scores import measure_robustness
    from jobs.ray_runtime.session import ray_errors_explained

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
    from pneumonia_core.reports.evaluation_page import CAUTIONS, evaluation_page
    from pneumonia_core.storage.files import write_bytes
    from pneumonia_core.storage.location import open_location

    domain = evaluation.get("domain")
    facts = {
        "Model": {
            "network": bundle.spec.network,
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
    page = evaluation_page(evaluation, f"Evaluation on {split}", facts)
    # The page is drawn before the first of the two is written, so that they are of one evaluation.
    for name, text in (
        ("evaluation.json", json.dumps(evaluation, indent=2) + "\n"),
        ("evaluation.html", page),
    ):
        write_bytes(open_location(str(folder / name)), text.encode())
    figures = headline(evaluation)
    say(", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None))
    if split in CAUTIONS:
        say(CAUTIONS[split])
    _say_robustness(evaluation["robustness"])
    say(f"the evaluation's page: {folder / 'evaluation.html'}")
    return {
        "state": "done",
        "evaluation": str(folder / "evaluation.json"),
        "page": str(folder / "evaluation.html"),
        **figures,
    }


def _say_robustness(table: dict[str, Any] | None) -> None:
    """For each perturbation one line of a terminal's 80 characters: how far AUROC and scores move."""
    if table is None:
        return
    before = f"AUROC {_signed(table['auroc']['value'], '')} on {table['images']} images; when they are"
    say(f"{before:<44} {'AUROC':>7} {'|Δp|':>6} {'99 %':>6} {'apart':>7}")
    for row in table["rows"]:
        say(
            f"{row['label']:<44} {_signed(row['auroc_change']['value']):>7} {row['mean_change']:>6.3f} "
            f"{row['p99_change']:>6.3f} {_signed(row['shift_difference']):>7}"
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
