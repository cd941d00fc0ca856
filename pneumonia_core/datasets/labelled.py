"""The classes, and what the names of labelled images say about class, patient and split."""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pneumonia_core.datasets.kermany import (
    SPLITS,
    LabelledImage,
    read_kermany_folder,
)
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import CLASSES

VALIDATION_FRACTION: Final = 0.1
_COLUMNS: Final = ["uri", "label", "patient_id", "split"]
_NO_BUCKET: Final = (
    "images with labels are read from folders that all workers see, by their paths, not from buckets."
)


def read_labelled(data: str) -> list[LabelledImage]:
    """The labelled images of a Kermany folder or of a labels table, sorted by path.

    A folder holds `train|val|test / NORMAL|PNEUMONIA / file`, or is one of these three itself; a table (Parquet or CSV)
    has the columns
    `uri`, `label` (a class name), `patient_id` and `split`. Raises InvalidInput saying what is missing.
    """
    if "://" in data:
        raise InvalidInput(f"{data}: {_NO_BUCKET}")
    # Workers of a cluster have other working directories.
    path = Path(data).absolute()
    if path.is_dir():
        return read_kermany_folder(path)
    if path.is_file() and path.suffix.lower() in (".parquet", ".csv"):
        return _read_labels_table(path)
    raise InvalidInput(
        f"{data}: no such data set. Give a folder with train/NORMAL and train/PNEUMONIA in it, "
        "or a .parquet or .csv table with the columns uri, label, patient_id, split."
    )


def _read_labels_table(path: Path) -> list[LabelledImage]:
    try:
        table = pq.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InvalidInput(
            f"{path}: the labels table cannot be read. Check that it is a whole table."
        ) from error
    for name in _COLUMNS:
        if table.column_names.count(name) != 1:
            amiss = "is missing from" if name not in table.column_names else "is more than once in"
            raise InvalidInput(
                f"{path}: the column {name} {amiss} the labels table. It needs {', '.join(_COLUMNS)}, each once."
            )
    images = []
    for row in table.select(_COLUMNS).to_pylist():
        if row["label"] not in CLASSES or row["split"] not in SPLITS:
            raise InvalidInput(
                f"{path}: label {row['label']!r} with split {row['split']!r}: labels are "
                f"{', '.join(CLASSES)}, splits are {', '.join(SPLITS)}."
            )
        if row["patient_id"] in (None, "") or row["uri"] in (None, ""):
            raise InvalidInput(
                f"{path}: a row of the labels table has no uri or no patient_id. Each needs both: images of one patient "
                "must not be trained on and measured by."
            )
        uri = str(row["uri"]).removeprefix("file://")
        if "://" in uri:
            raise InvalidInput(f"{path}: {uri!r}: {_NO_BUCKET}")
        file = uri if Path(uri).is_absolute() else str(path.parent / uri)
        images.append(LabelledImage(file, CLASSES.index(row["label"]), str(row["patient_id"]), row["split"]))
    if not images:
        raise InvalidInput(f"{path}: the labels table has no rows.")
    _check_named_once(path, images)
    return sorted(images, key=lambda image: image.path)


def _read_csv(path: Path) -> pa.Table:
    # As text: patient 007 is not patient 7, and numbers of twenty digits would be rounded to the same one.
    texts = dict.fromkeys(_COLUMNS, pa.string())
    return pa.csv.read_csv(
        path, convert_options=pa.csv.ConvertOptions(column_types=texts, strings_can_be_null=True)
    )


def _check_named_once(table: Path, images: list[LabelledImage]) -> None:
    # As scoring does, which knows an image by its whole path.
    twice = [
        file for file, rows in Counter(os.path.normpath(image.path) for image in images).items() if rows > 1
    ]
    if twice:
        more = f" (and {len(twice) - 1} more files)" if len(twice) > 1 else ""
        raise InvalidInput(
            f"{table}: {twice[0]!r} is named by more than one row{more}: a file under two patients would be trained on and "
            "measured by. Leave one row for each file."
        )


def split_training(images: list[LabelledImage]) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Training and validation images, cut from the train and val splits by patient.

    A patient whose key hashes into the lowest tenth is validation, on every machine, and whatever patients come to
    the data set: none of those that an older model was trained on becomes one to measure it by. In a small set, the
    lowest of each class is, so that every class is present. (The official val split has 16 images, none viral.)
    """
    usable = [image for image in images if image.split in ("train", "val")]
    if not usable:
        raise InvalidInput(
            "all images are of the split test; training and validation are cut from train and val. Give data that have these."
        )
    validation_patients: set[str] = set()
    for label in range(len(CLASSES)):
        patients = sorted({image.patient_id for image in usable if image.label == label}, key=_patient_hash)
        below = sum(_patient_hash(patient) < VALIDATION_FRACTION for patient in patients)
        validation_patients.update(patients[: min(max(1, below), len(patients) - 1)])
    training = [image for image in usable if image.patient_id not in validation_patients]
    validation = [image for image in usable if image.patient_id in validation_patients]
    for name, part in (("training", training), ("validation", validation)):
        absent = [CLASSES[label] for label in range(len(CLASSES)) if all(i.label != label for i in part)]
        if absent:
            raise InvalidInput(
                f"the {name} part has no {', '.join(absent)} image: each class needs images of two or more patients."
            )
    return training, validation


def _patient_hash(patient_id: str) -> float:
    """From 0 to 1, evenly spread."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:7], "big") / 256**7
