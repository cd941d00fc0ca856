"""The Kermany data set of paediatric chest X-rays: class and patient in its file names.

Kermany, Zhang, Goldbaum, "Large Dataset of Labeled Optical Coherence Tomography (OCT) and Chest X-Ray
Images", Mendeley Data, 2018.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL

DATA_SETS: Final = ("kermany", "synthetic", "other")
# Ages in years of the patients of the data sets that are known by name. Kermany, Zhang, Goldbaum 2018:
# "pediatric patients of one to five years old".
KNOWN_AGES_YEARS: Final = {"kermany": (1.0, 5.0)}
# Shares of viral pneumonias that are labelled bacterial in the train split, and of the reverse. A fit to
# held-out scores finds 0.15 and 0.01 (two logistic curves with a share of wrong labels each).
WRONG_KINDS: Final = {"kermany": (0.12, 0.02)}
_PNEUMONIA = re.compile(r"^(person(\d+)_(bacteria|virus))_(\d+)(?:_\d+)*$")
_NORMAL = re.compile(r"^((?:NORMAL2-)?IM-\d+)(?:-\d+)+$")
# A second naming under which the data set is distributed.
_BY_KIND = re.compile(r"^((NORMAL|BACTERIA|VIRUS)-\d+)-\d+$")
_KINDS = {"NORMAL": NORMAL, "BACTERIA": BACTERIAL, "VIRUS": VIRAL}
# The files of a kind have consecutive numbers, patient after patient. In the train split, from the eightieth
# patient on, the file's number is 2.5 to 4.7 times the patient's for bacterial images, and 1.6 to 2.1 times
# for viral ones.
_COUNTED_FROM: Final = 80
_FILES_PER_PATIENT: Final = {BACTERIAL: (2.4, 5.0), VIRAL: (1.6, 2.15)}


@dataclass(frozen=True)
class LabelledImage:
    """An image with its ground truth.

    `ref` says where its bytes are, `label` is an index into findings.LABELS. `version` changes when the
    content does; None where only the storage of the file knows it.
    """

    ref: ImageRef
    label: int
    patient_id: str
    split: str
    version: str | None = None

    @property
    def uri(self) -> str:
        return self.ref.uri


def parse_kermany_name(stem: str) -> tuple[int, str] | None:
    """Class index and patient of a Kermany file name without its suffix; None for any other name.

    The numbering restarts between `person1_bacteria` and `person1_virus`. These are different children, so
    the patient key keeps the kind.
    """
    if found := _PNEUMONIA.match(stem):
        return (BACTERIAL if found[3] == "bacteria" else VIRAL), found[1]
    if found := _NORMAL.match(stem):
        return NORMAL, found[1]
    if found := _BY_KIND.match(stem):
        return _KINDS[found[2]], found[1]
    return None


def parse_name_in_class_folder(stem: str, label: int) -> tuple[int, str] | None:
    """As `parse_kermany_name`, of a file in the folder of a label; None also where the two contradict."""
    parsed = parse_kermany_name(stem)
    if parsed is None:
        return None
    agree = parsed[0] != NORMAL if label == PNEUMONIA_UNKNOWN_KIND else parsed[0] == label
    return parsed if agree else None


def are_kermanys(paths: Iterable[str]) -> bool:
    """Whether all these files are of the Kermany data set, or of any part of it, by their names.

    Every name must be a Kermany name. At least one must be a name that other data do not have: of the second
    series of normal images, of the second naming, or with the published numbers. Phantoms, and other data
    that are renamed to fit the folder layout, have other numbers.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    if any(parse_kermany_name(stem) is None for stem in stems):
        return False
    return any(
        stem.startswith("NORMAL2-") or _BY_KIND.match(stem) for stem in stems
    ) or _are_numbered_as_published(stems)


def _are_numbered_as_published(stems: list[str]) -> bool:
    """Whether files of both kinds have the published numbers, judged by patients with high numbers."""
    judged = set()
    for found in filter(None, map(_PNEUMONIA.match, stems)):
        label, patient, file = (BACTERIAL if found[3] == "bacteria" else VIRAL), int(found[2]), int(found[4])
        if patient < _COUNTED_FROM:
            continue
        low, high = _FILES_PER_PATIENT[label]
        if not low * patient <= file <= high * patient:
            return False
        judged.add(label)
    return judged == {BACTERIAL, VIRAL}


def known_data_set(paths: Iterable[str]) -> str:
    """`kermany` if all file names are those of the Kermany data set (`are_kermanys`), else `other`."""
    return "kermany" if are_kermanys(paths) else "other"
