"""What is known of listed images besides their pixels: class, patient and split, from a table or from paths."""

import json
from dataclasses import dataclass
from typing import Final

from pneumonia_core.datasets.kermany import SPLITS, parse_kermany_name
from pneumonia_core.findings import CLASSES, NORMAL

# A class that a folder names without saying which pneumonia it is.
PNEUMONIA: Final = "pneumonia"
COLUMNS: Final = ("label", "patient_id", "split")
_FOLDERS: Final = (*CLASSES, PNEUMONIA)


@dataclass(frozen=True)
class Annotation:
    """`label` is a class name or `pneumonia`; each None where nothing is said."""

    label: str | None = None
    patient_id: str | None = None
    split: str | None = None

    @property
    def is_ill(self) -> bool | None:
        return None if self.label is None else self.label != CLASSES[NORMAL]


def annotate(uri: str, archive: str, carried: str | None = None) -> Annotation:
    """What is said of an image: by the columns of the table that names it, else by its path.

    Folders beneath the archive, and the archive's own name, may say the split (train, val, test) and the class
    (NORMAL, PNEUMONIA, bacterial, viral). Only within such a folder is a Kermany file name trusted to say class
    and patient: other devices export IM-0001-0001 as well.
    """
    if carried is not None:
        return _of_columns(json.loads(carried))
    *folders, name = _parts_beneath(uri, archive)
    lower = [folder.lower() for folder in folders]
    split = next((folder for folder in reversed(lower) if folder in SPLITS), None)
    label = next((folder for folder in reversed(lower) if folder in _FOLDERS), None)
    named = parse_kermany_name(name.rpartition(".")[0]) if label is not None else None
    if named is None or (named[0] == NORMAL) != (label == CLASSES[NORMAL]):
        return Annotation(label, None, split)
    return Annotation(CLASSES[named[0]], named[1], split)


def _of_columns(values: dict[str, str | None]) -> Annotation:
    label = values.get("label")
    known = label.lower() if label is not None and label.lower() in _FOLDERS else None
    return Annotation(known, values.get("patient_id") or None, values.get("split") or None)


def _parts_beneath(uri: str, archive: str) -> list[str]:
    """The archive's own name and all that follows it, a container's name among it."""
    root = archive.rstrip("/").rpartition("/")[0]
    return uri.removeprefix(root).strip("/").replace("!/", "/").split("/")
