"""Training and validation images, cut from labelled images by patient: once, or by folds."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import LABELS, missing_classes

VALIDATION_FRACTION: Final = 0.1
# Images to train on, and those that are held back from it.
Parts = tuple[list[LabelledImage], list[LabelledImage]]


def split_training(images: Sequence[LabelledImage]) -> Parts:
    """Training and validation images, cut from the splits train and val by patient.

    A patient is in validation if the hash of the patient's key is in the lowest tenth. That holds on every
    machine and whatever patients are added later, so no patient that an older model was trained on moves to
    validation. In a small set, each label gives at least the patient with its lowest hash, so that every
    one is present. (The official val split has 16 images, none of them viral.) Raises InvalidInput where a
    part lacks a class (`missing_classes`).
    """
    usable = _not_test(images)
    held_back: set[str] = set()
    for patients in _patients_by_label(usable):
        below = sum(_patient_hash(patient) < VALIDATION_FRACTION for patient in patients)
        held_back.update(patients[: max(0, min(max(1, below), len(patients) - 1))])
    return _parts(usable, held_back)


def split_folds(images: Sequence[LabelledImage], folds: int) -> list[Parts]:
    """For each fold the images outside and inside it, of the splits train and val.

    Each patient is in one fold. A fold has as many patients of each label as any other, but for one: they are
    dealt out in the order of their hashes. Raises InvalidInput where a class has fewer patients than folds.
    """
    usable = _not_test(images)
    inside: list[set[str]] = [set() for _ in range(folds)]
    for patients in _patients_by_label(usable):
        for number, patient in enumerate(patients):
            # A patient with images of two labels stays where the first label put it.
            if not any(patient in fold for fold in inside):
                inside[number % folds].add(patient)
    return [_parts(usable, fold) for fold in inside]


def _not_test(images: Iterable[LabelledImage]) -> list[LabelledImage]:
    usable = [image for image in images if image.split in ("train", "val")]
    if not usable:
        raise InvalidInput(
            "the data set holds only test images. Training and validation need images in train or val."
        )
    return usable


def _patients_by_label(images: Sequence[LabelledImage]) -> list[list[str]]:
    """The patients of each label, in the order of their hashes."""
    return [
        sorted({image.patient_id for image in images if image.label == label}, key=_patient_hash)
        for label in range(len(LABELS))
    ]


def _parts(images: Sequence[LabelledImage], held_back: set[str]) -> Parts:
    training = [image for image in images if image.patient_id not in held_back]
    validation = [image for image in images if image.patient_id in held_back]
    for name, part in (("training", training), ("validation", validation)):
        if absent := missing_classes(image.label for image in part):
            raise InvalidInput(
                f"the {name} part has no {', '.join(absent)} image: each class needs images of two or more "
                f"patients, and of one for each fold. Where the kind of pneumonia is not known, label all of "
                f"it {LABELS[-1]!r}."
            )
    return training, validation


def _patient_hash(patient_id: str) -> float:
    """From 0 to 1, evenly spread."""
    return int.from_bytes(hashlib.sha256(patient_id.encode()).digest()[:7], "big") / 256**7
