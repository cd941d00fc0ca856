"""Folds of the patients. The cut of one validation part is tested with the labelled sets."""

from collections import Counter

import pytest

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.datasets.split import split_folds
from pneumonia_core.errors import InvalidInput


def images(patients: int, split: str = "train") -> list[LabelledImage]:
    return [
        LabelledImage(ImageRef(f"file:///{label}-{patient}-{number}"), label, f"{label}-{patient}", split)
        for label in range(3)
        for patient in range(patients)
        for number in range(2)
    ]


def test_each_patient_is_held_back_once_and_never_beside_itself():
    everything = images(10)
    folds = split_folds([*everything, *images(2, "test")], 3)
    held_back = Counter(image.uri for _, inside in folds for image in inside)
    assert held_back == dict.fromkeys((image.uri for image in everything), 1)
    for outside, inside in folds:
        assert len(outside) + len(inside) == len(everything)
        assert not {image.patient_id for image in outside} & {image.patient_id for image in inside}


def test_folds_have_as_many_patients_of_each_label_but_for_one():
    for _, inside in split_folds(images(10), 3):
        patients = Counter(image.label for image in inside)
        assert set(patients) == {0, 1, 2}
        # Two images each.
        assert set(patients.values()) <= {6, 8}


def test_the_order_of_the_images_changes_nothing():
    forward, backward = split_folds(images(7), 2), split_folds(images(7)[::-1], 2)
    for (_, one), (_, other) in zip(forward, backward, strict=True):
        assert {image.uri for image in one} == {image.uri for image in other}


def test_a_patient_with_two_labels_is_in_one_fold():
    shared = [LabelledImage(ImageRef(f"file:///s{label}"), label, "shared", "train") for label in (1, 2)]
    folds = split_folds([*images(6), *shared], 3)
    assert sorted(len([i for i in inside if i.patient_id == "shared"]) for _, inside in folds) == [0, 0, 2]


def test_a_class_with_fewer_patients_than_folds_is_refused():
    with pytest.raises(InvalidInput, match="one for each fold"):
        split_folds(images(3), 4)
