"""The classes, and what the names of labelled images say about class, patient and split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pneumonia_core.errors import InvalidInput

CLASSES: Final = ("normal", "bacterial", "viral")
NORMAL, BACTERIAL, VIRAL = range(3)
SPLITS: Final = ("train", "val", "test")
VALIDATION_FRACTION: Final = 0.1
IMAGE_SUFFIXES: Final = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff", ".dcm"})

_PNEUMONIA = re.compile(r"^(person(\d+)_(bacteria|virus))_(\d+)(?:_\d+)*$")
_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)(?:-\d+)+$")
# A second naming in which the data set is handed on.
_BY_KIND = re.compile(r"^((NORMAL|BACTERIA|VIRUS)-\d+)-\d+$")
_COLUMNS: Final = ["uri", "label", "patient_id", "split"]
_NO_BUCKET: Final = (
    "images with labels are read from folders that all workers see, by their paths, not from buckets."
)
_CLASS_FOLDERS: Final = ("NORMAL", "PNEUMONIA")
_KINDS = {"NORMAL": NORMAL, "BACTERIA": BACTERIAL, "VIRUS": VIRAL}
# The files of a kind are numbered through, patient after patient. Read from the names of the train split: from its
# eightieth patient on, bacterial files run 2.5 to 4.7 times ahead of the patients, viral ones 1.6 to 2.1 times.
_COUNTED_FROM: Final = 80
_FILES_PER_PATIENT: Final = {BACTERIAL: (2.4, 5.0), VIRAL: (1.6, 2.15)}


@dataclass(frozen=True)
class LabelledImage:
    """One image with its truth: `path` to read, `label` an index into CLASSES."""

    path: str
    label: int
    patient_id: str
    split: str


def parse_kermany_name(stem: str) -> tuple[int, str] | None:
    """Class index and patient of a Kermany file name without suffix, or None if it is no such name.

    Numbering restarts between `person1_bacteria` and `person1_virus`: they are different children,
    so the patient key keeps the kind.
    """
    if found := _PNEUMONIA.match(stem):
        return (BACTERIAL if found[3] == "bacteria" else VIRAL), found[1]
    if found := _NORMAL.match(stem):
        return NORMAL, found[1]
    if found := _BY_KIND.match(stem):
        return _KINDS[found[2]], found[1]
    return None


def are_kermanys(paths: Iterable[str]) -> bool:
    """Whether these are files of Kermany's data set, of which any part may be there: by their names.

    All must have such a name, and some one that others do not take: of the second series of normal images, of the
    second naming, or with the published numbers. Phantoms, and data renamed to fit the folder layout, are numbered
    otherwise.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    if any(parse_kermany_name(stem) is None for stem in stems):
        return False
    return any(
        stem.startswith("NORMAL2-") or _BY_KIND.match(stem) for stem in stems
    ) or _are_numbered_as_published(stems)


def _are_numbered_as_published(stems: list[str]) -> bool:
    """Whether the pneumonia of both kinds is, as far as patients are numbered high enough to tell."""
    told = set()
    for found in filter(None, map(_PNEUMONIA.match, stems)):
        label, patient, file = (BACTERIAL if found[3] == "bacteria" else VIRAL), int(found[2]), int(found[4])
        if patient < _COUNTED_FROM:
            continue
        low, high = _FILES_PER_PATIENT[label]
        if not low * patient <= file <= high * patient:
            return False
        told.add(label)
    return told == {BACTERIAL, VIRAL}


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
        return _read_kermany_folder(path)
    if path.is_file() and path.suffix.lower() in (".parquet", ".csv"):
        return _read_labels_table(path)
    raise InvalidInput(
        f"{data}: no such data set. Give a folder with train/NORMAL and train/PNEUMONIA in it, "
        "or a .parquet or .csv table with the columns uri, label, patient_id, split."
    )


def _read_kermany_folder(folder: Path) -> list[LabelledImage]:
    images = []
    for split, kind, place in _class_folders(folder):
        for file in _files(place):
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
                continue
            parsed = parse_kermany_name(file.stem)
            if parsed is None or (parsed[0] == NORMAL) != (kind == "NORMAL"):
                raise InvalidInput(
                    f"{str(file)!r}: the name does not say class and patient as Kermany names do "
                    "(IM-0115-0001.jpeg, person1_bacteria_1.jpeg, BACTERIA-7422-0001.jpeg). "
                    "Give a labels table with the columns uri, label, patient_id, split instead."
                )
            images.append(LabelledImage(str(file), parsed[0], parsed[1], split))
    if not images:
        raise InvalidInput(f"{folder}: no labelled images in it. {_what_to_give_instead(folder)}")
    return images


def _class_folders(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Split, kind and place of each folder that may hold images: also where the folder of one split was given."""
    roots = [(split, folder / split) for split in SPLITS]
    if folder.name in SPLITS:
        roots.append((folder.name, folder))
    for split, root in roots:
        for kind in _CLASS_FOLDERS:
            yield split, kind, root / kind


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidInput(
            f"{folder}: this folder of images cannot be read ({error.strerror}). Mend that, or move it away: without it "
            "a class would be missing."
        ) from error


def _what_to_give_instead(folder: Path) -> str:
    if any((folder / kind).is_dir() for kind in _CLASS_FOLDERS):
        return "It has the classes, but its name does not say of which split: call it train, val or test."
    for inner in sorted(folder.iterdir()):
        if any(place.is_dir() for _, _, place in _class_folders(inner)):
            return f"They are in {inner}: give that."
    return "Expected train/NORMAL, train/PNEUMONIA and so on, or give a labels table (.parquet or .csv)."


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
