"""Cross-validation by patient of the train and val splits.

The network that scores an image saw no image of its patient, neither in training nor in choosing thresholds.

    python tests/bench/cross_validate.py --data KERMANY --weights FILE --keep FOLDER [--originals FOLDER]
        [--folds N] [--networks N] [--hold-out FACT] [options of `pneumonia train`]

It uses the commands as a user would. A labels table per fold names the fold's patients `test`. `pneumonia
train` cuts its validation from the rest, and `pneumonia evaluate` measures the fold. `--originals` is a
Kermany folder of some of the same images as published. All of their patients are in the first fold: on them
its network shows how encoding and shape move the scores of unknown images. A finished fold is not repeated.

`--hold-out` makes folds of patients that are alike in a fact and unlike the others in it. So a network that
learnt the fact instead of the lung is found out. `series` are patients of neighbouring numbers, class by
class; the other facts are those of the pictures that `pneumonia inspect` measures.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from deltalake import DeltaTable

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pneumonia_core.archives.entries import ImageRef  # noqa: E402
from pneumonia_core.datasets.image_facts import facts_of_bytes  # noqa: E402
from pneumonia_core.datasets.kermany import LabelledImage, parse_kermany_name  # noqa: E402
from pneumonia_core.datasets.labelled import read_labelled  # noqa: E402
from pneumonia_core.datasets.shortcuts import PICTURE_FACTS  # noqa: E402
from pneumonia_core.evaluation.evaluate import evaluate  # noqa: E402
from pneumonia_core.evaluation.scored_set import ScoredSet  # noqa: E402
from pneumonia_core.findings import CLASSES, Thresholds  # noqa: E402
from pneumonia_core.storage.ranges import read_file  # noqa: E402

NETWORK = "resnet18"
SERIES = "series"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--keep", required=True, type=Path, help="Folder for tables, bundles and scores.")
    parser.add_argument("--originals", type=Path)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--networks", type=int, default=1, help="Of each bundle: `pneumonia train --folds`.")
    parser.add_argument("--hold-out", choices=(SERIES, *PICTURE_FACTS))
    options, training = parser.parse_known_args()
    training += ["--weights", options.weights, "--folds", str(options.networks)]
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        sys.exit("PYTHONDONTWRITEBYTECODE is set: every process compiles again. Unset it.")
    images = [image for image in read_labelled(options.data) if image.split != "test"]
    originals = labelled_originals(options.originals) if options.originals else []
    if options.hold_out and originals:
        sys.exit("--originals takes their patients into the first fold; leave it out with --hold-out.")
    if options.hold_out:
        folds = fold_by_rank(groups_by_rank(images, options.hold_out), options.folds)
    else:
        folds = assign_folds(images, {image.patient_id for image in originals}, options.folds)
    for number in range(options.folds):
        measure_fold(number, images, originals, folds, training, options.keep)
    report([options.keep / f"fold{number}" for number in range(options.folds)], images)


def labelled_originals(folder: Path) -> list[LabelledImage]:
    images = []
    for file in sorted(folder.rglob("*.jpeg")):
        parsed = parse_kermany_name(file.stem)
        if parsed is None:
            sys.exit(f"{file}: not a name of the Kermany set.")
        images.append(LabelledImage(ImageRef(f"file://{file.absolute()}"), *parsed, "test"))
    return images


def assign_folds(images: list[LabelledImage], first: set[str], folds: int) -> dict[str, int]:
    """The fold of each patient, stratified by class; the patients of `first` are in the first fold."""
    assigned: dict[str, int] = {}
    for label in range(len(CLASSES)):
        patients = {image.patient_id for image in images if image.label == label}
        ranked = sorted(patients, key=lambda patient: (patient not in first, fold_hash(patient)))
        for fold, some in enumerate(np.array_split(np.array(ranked), folds)):
            assigned.update(dict.fromkeys(some.tolist(), fold))
    return assigned


def groups_by_rank(images: list[LabelledImage], fact: str) -> list[list[str]]:
    """Patients in the order of a fact: one list or, because their numbers begin again, one for each class."""
    if fact == SERIES:
        return [
            sorted({image.patient_id for image in images if image.label == label}, key=patient_number)
            for label in range(len(CLASSES))
        ]
    values: dict[str, list[float]] = {}
    for image in images:
        measured = getattr(facts_of_bytes(read_file(image.uri)), fact)
        values.setdefault(image.patient_id, []).append(measured)
    return [sorted(values, key=lambda patient: (np.median(values[patient]), patient))]


def patient_number(patient: str) -> tuple[str, int]:
    """The text before a patient's number, and the number: the normal images are of two series."""
    text, number = re.fullmatch(r"(.*?)(\d+)\D*", patient).groups()
    return text, int(number)


def fold_by_rank(groups: list[list[str]], folds: int) -> dict[str, int]:
    """The fold of each patient: each group in as many stretches of equal length."""
    return {
        patient: fold
        for group in groups
        for fold, some in enumerate(np.array_split(np.array(group), folds))
        for patient in some.tolist()
    }


def fold_hash(patient: str) -> bytes:
    # Not the hash that training cuts its validation by.
    return hashlib.sha256(f"fold {patient}".encode()).digest()


def measure_fold(
    number: int,
    images: list[LabelledImage],
    originals: list[LabelledImage],
    folds: dict[str, int],
    training: list[str],
    keep: Path,
) -> None:
    folder = keep / f"fold{number}"
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "labels.csv"
    write_labels(table, images, {patient for patient, fold in folds.items() if fold == number})
    if not (folder / "trained.json").exists():
        trained = pneumonia(
            "train", "--data", table, "--models", folder / "models", "--network", NETWORK,
            "--resume", "--no-int8", *training,
        )  # fmt: skip
        (folder / "trained.json").write_text(json.dumps(trained))
    bundle = json.loads((folder / "trained.json").read_text())["bundle"]
    if not (folder / "test" / "evaluation.json").exists():
        pneumonia(
            "evaluate", "--model", bundle, "--data", table, "--output", folder / "test", "--robustness", 0
        )
    if number == 0 and originals and not (folder / "originals" / "evaluation.json").exists():
        table = folder / "originals.csv"
        write_labels(table, originals, {image.patient_id for image in originals})
        pneumonia(
            "evaluate", "--model", bundle, "--data", table, "--output", folder / "originals",
            "--robustness", len(originals) * 2,
        )  # fmt: skip


def write_labels(path: Path, images: list[LabelledImage], test: set[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "patient_id", "split"])
        for image in images:
            split = "test" if image.patient_id in test else "train"
            writer.writerow([image.uri, CLASSES[image.label], image.patient_id, split])


def pneumonia(*arguments: object) -> dict[str, object]:
    """The result of a command, which tells its progress on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"pneumonia {arguments[0]} ended with {done.returncode}.")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(folders: list[Path], images: list[LabelledImage]) -> None:
    """The figures of each fold at its own thresholds, their means, and those of all images as one set."""
    names = ("pneumonia AUROC", "accuracy", "bacterial-vs-viral AUROC", "three-class accuracy", "flagged")
    print(f"{'':10}" + "".join(f"{name:>26}" for name in names))
    rows = [figures(json.loads((folder / "test" / "evaluation.json").read_text())) for folder in folders]
    for number, row in enumerate(rows):
        print(f"fold {number:<5}" + "".join(f"{value:26.4f}" for value in row))
    print(f"{'mean':10}" + "".join(f"{value:26.4f}" for value in np.mean(rows, axis=0)))
    by_path = {image.uri: image for image in images}
    scored = [row for folder in folders for row in scores(folder / "test" / "results")]
    found = [by_path[row["image_uri"]] for row in scored]
    pooled = evaluate(
        ScoredSet.of(
            [image.label for image in found],
            [image.patient_id for image in found],
            [[row[f"p_{name}"] for name in CLASSES] for row in scored],
        ),
        Thresholds(0.5, 0.5),
    )
    for task, measures in pooled["tasks"].items():
        auroc = measures["auroc"]
        value, low, high = auroc["value"], auroc["low"], auroc["high"]
        print(f"all {pooled['images']} images, {task}: AUROC {value:.4f} ({low:.4f} to {high:.4f})")


def figures(evaluation: dict) -> list[float]:
    tasks = evaluation["tasks"]
    return [
        tasks["pneumonia_vs_normal"]["auroc"]["value"],
        tasks["pneumonia_vs_normal"]["accuracy"]["value"],
        tasks["bacterial_vs_viral"]["auroc"]["value"],
        evaluation["three_class"]["accuracy"]["value"],
        evaluation["domain"]["flagged_share"],
    ]


def scores(results: Path) -> list[dict]:
    (table,) = results.glob("*/scores")
    rows = DeltaTable(str(table)).to_pyarrow_dataset().to_table(filter=pc.field("status") == "scored")
    return rows.to_pylist()


if __name__ == "__main__":
    main()
