"""The model card, under the headings of Mitchell et al., 'Model Cards for Model Reporting' (FAT* 2019)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import BACTERIAL, NORMAL, VIRAL
from pneumonia_core.imaging.formats import IMAGE_SUFFIXES

# Ages of the patients of the data sets that are known by name, in years: Kermany, Zhang, Goldbaum 2018,
# 'pediatric patients of one to five years old'.
KNOWN_AGES_YEARS: Final = {"kermany": (1.0, 5.0)}
SPLITS: Final = ("train", "val", "test")
_PNEUMONIA = re.compile(r"^(person(\d+)_(bacteria|virus))_(\d+)(?:_\d+)*$")
_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)(?:-\d+)+$")
# A second naming in which the data set is handed on.
_BY_KIND = re.compile(r"^((NORMAL|BACTERIA|VIRUS)-\d+)-\d+$")
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


def read_kermany_folder(folder: Path) -> list[LabelledImage]:
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


DATA_SETS: Final = ("kermany", "synthetic", "other")


def known_data_set(paths: Iterable[str]) -> str:
    """`kermany` if all file names are those of Kermany's chest X-rays (labels.are_kermanys), else `other`."""
    return "kermany" if are_kermanys(paths) else "other"
