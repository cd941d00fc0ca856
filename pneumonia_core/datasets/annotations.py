"""Class, patient and split of a listed image, from the columns of a table or from its path."""

import json
from dataclasses import dataclass

from pneumonia_core.datasets.folder_names import label_of_folder, split_of_folder
from pneumonia_core.datasets.kermany import parse_name_in_class_folder
from pneumonia_core.findings import CLASSES, LABELS, NORMAL


@dataclass(frozen=True)
class Annotation:
    """`label` is one of findings.LABELS. A field is None where it is not known."""

    label: str | None = None
    patient_id: str | None = None
    split: str | None = None

    @property
    def is_ill(self) -> bool | None:
        return None if self.label is None else self.label != CLASSES[NORMAL]


def annotate(uri: str, archive: str, carried: str | None = None) -> Annotation:
    """The annotation of an image: from the columns of the table that names it, else from its path.

    The archive's own name, and folders under it, may say the split (train, val, test) and the class (NORMAL,
    PNEUMONIA, BACTERIA, VIRUS), as `folder_names` knows them. A Kermany file name says class and
    patient only within such a folder, because other devices export names such as IM-0001-0001 too.
    """
    if carried is not None:
        return _of_columns(json.loads(carried))
    *folders, name = _parts_beneath(uri, archive)
    inner_first = folders[::-1]
    split = next(filter(None, map(split_of_folder, inner_first)), None)
    label = next((found for folder in inner_first if (found := label_of_folder(folder)) is not None), None)
    if label is None:
        return Annotation(None, None, split)
    named = parse_name_in_class_folder(name.rpartition(".")[0], label)
    if named is None:
        return Annotation(LABELS[label], None, split)
    return Annotation(CLASSES[named[0]], named[1], split)


def _of_columns(values: dict[str, str | None]) -> Annotation:
    label = values.get("label")
    known = label.lower() if label is not None and label.lower() in LABELS else None
    return Annotation(known, values.get("patient_id") or None, values.get("split") or None)


def _parts_beneath(uri: str, archive: str) -> list[str]:
    """The segments of the path from the archive's own name on; the name of a tar or zip is one of them."""
    root = archive.rstrip("/").rpartition("/")[0]
    return uri.removeprefix(root).strip("/").replace("!/", "/").split("/")
