"""Folders of splits and classes as people have them: read where they are clear, else refused by name."""

import logging
import zipfile

import pytest

from pneumonia_core.datasets.annotations import annotate
from pneumonia_core.datasets.labelled import images_of_split, read_labelled
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import BACTERIAL, CLASSES, LABELS, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL


def touched(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def labels(data):
    return [(image.split, image.label, image.uri.rpartition("/")[2]) for image in read_labelled(str(data))]


IN_TEST = [("test", NORMAL, "IM-0001-0001.jpeg"), ("test", VIRAL, "person1_virus_6.jpeg")]
NAMES = [name for _, _, name in IN_TEST]


@pytest.mark.parametrize(
    "folders",
    [
        ("test/normal", "test/pneumonia"),
        ("Test/Normal", "Test/Pneumonia"),
        ("testing/NORMAL", "testing/VIRUS"),
        ("test/NORMAL", "test/PNEUMONIA/VIRUS"),
        ("test/NORMAL/images", "test/PNEUMONIA/2018/images"),
        ("test/images/NORMAL", "test/images/PNEUMONIA"),
        ("NORMAL/test", "PNEUMONIA/test"),
        ("chest_xray/chest_xray/test/NORMAL", "chest_xray/chest_xray/test/PNEUMONIA"),
    ],
)
def test_folders_that_are_clear_are_read(tmp_path, folders):
    paths = [f"{folder}/{name}" for folder, name in zip(folders, NAMES, strict=True)]
    assert labels(touched(tmp_path / "set", *paths)) == IN_TEST
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in paths:
            archive.writestr(path, b"\xff\xd8\xff")
    assert labels(tmp_path / "set.zip") == IN_TEST
    annotations = [annotate(f"file:///d/{path}", "file:///d") for path in paths]
    assert [(one.split, one.label) for one in annotations] == [("test", "normal"), ("test", CLASSES[VIRAL])]


@pytest.mark.parametrize("name", ["valid", "validation", "VAL"])
def test_validation_of_other_names_is_read_as_val_and_told(tmp_path, name, caplog):
    data = touched(tmp_path, f"train/NORMAL/{NAMES[0]}", f"{name}/PNEUMONIA/{NAMES[1]}")
    assert labels(data) == [("train", NORMAL, NAMES[0]), ("val", VIRAL, NAMES[1])]
    assert f"{name}/ of file://{tmp_path} is read as the split val" in caplog.text


def test_kinds_beside_normal_are_labels_where_names_say_nothing(tmp_path):
    data = touched(tmp_path, *(f"train/{folder}/scan.png" for folder in ("NORMAL", "BACTERIA", "VIRUS")))
    read = read_labelled(str(data))
    assert [image.label for image in read] == [NORMAL, BACTERIAL, VIRAL]
    assert len({image.patient_id for image in read}) == 3


def test_images_of_one_name_in_several_folders_of_a_class_are_several_patients(tmp_path):
    data = touched(tmp_path, "train/NORMAL/a/1.png", "train/NORMAL/b/1.png")
    assert len({image.patient_id for image in read_labelled(str(data))}) == 2


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["test/NORMAL/a.png", "test/Pneumonia/b.png"], "the folder Pneumonia/ is in other letters"),
        (["train/normal/a.png", "test/NORMAL/b.png", "test/PNEUMONIA/c.png"], "the folder normal/ is in"),
        (["test/NORMAL/a.png", "test/PNEUMONA/b.png"], "test/PNEUMONA holds images, and no folder"),
        (["test/NORMAL/a.png", "test/b.png"], "test holds images, and no folder"),
        (["test/NORMAL/a.png", "holdout/NORMAL/b.png"], "holdout/NORMAL has a class, but no folder's name"),
        (["val/NORMAL/a.png", "valid/NORMAL/b.png"], "val and valid both say the split val"),
        (["train/NORMAL/a.png", "Train/NORMAL/b.png"], "Train and train both say the split train"),
        (["test/NORMAL/VIRUS/a.png"], "test/NORMAL/VIRUS contradict each other"),
        (["train/test/NORMAL/a.png"], "train/test/NORMAL contradict each other"),
        (["a/test/NORMAL/a.png", "b/test/NORMAL/a.png"], "several data sets: a and b"),
        (["test/NORMAL/a.png", "more/test/NORMAL/b.png"], "several data sets: its own folders and more"),
        (["train/BACTERIA/IM-0001-0001.jpeg"], "does not say class and patient"),
        (["train/VIRUS/person1_bacteria_1.jpeg"], "does not say class and patient"),
    ],
)
def test_set_of_which_a_part_would_be_left_out_or_mislabelled_is_refused(tmp_path, paths, message):
    with pytest.raises(InvalidInput, match=message):
        read_labelled(str(touched(tmp_path, *paths)))


def test_a_copy_deeper_inside_is_left_out_and_told(tmp_path, caplog):
    data = touched(tmp_path, *(f"{root}test/NORMAL/a.png" for root in ("", "chest_xray/")))
    assert labels(data) == [("test", NORMAL, "a.png")]
    assert "chest_xray is a copy" in caplog.text


def test_what_is_left_out_is_told(tmp_path, caplog):
    data = touched(
        tmp_path, "test/NORMAL/a.png", "test/NORMAL/1.2.840.7", "test/NORMAL/notes.txt", "logo.png"
    )
    with caplog.at_level(logging.WARNING):
        assert labels(data) == [("test", NORMAL, "a.png")]
    assert "left out, such as logo.png" in caplog.text
    assert "like those of images, such as test/NORMAL/1.2.840.7" in caplog.text


def test_class_behind_a_link_is_read_and_a_link_that_leads_nowhere_is_not_left_out(tmp_path):
    elsewhere = touched(tmp_path / "elsewhere", "b.png")
    data = touched(tmp_path / "data", "test/NORMAL/a.png")
    (data / "test" / "PNEUMONIA").symlink_to(elsewhere)
    (data / "test" / "NORMAL" / "up").symlink_to(data)
    assert labels(data) == [("test", NORMAL, "a.png"), ("test", PNEUMONIA_UNKNOWN_KIND, "b.png")]
    (elsewhere / "b.png").unlink()
    elsewhere.rmdir()
    with pytest.raises(InvalidInput, match="a class would be missing"):
        read_labelled(str(data))


@pytest.mark.parametrize(("label", "absent"), [("normal", "pneumonia"), ("viral", "normal")])
def test_split_of_one_class_cannot_be_evaluated(tmp_path, label, absent):
    other = next(name for name in LABELS if name not in (label, absent))
    rows = (
        f"uri,label,patient_id,split\na.png,{label},1,test\nb.png,{other},2,train\nc.png,{absent},3,train\n"
    )
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(InvalidInput, match=f"test images of .* without {absent} images"):
        images_of_split(str(tmp_path / "labels.csv"), "test")
