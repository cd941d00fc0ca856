"""What names of labelled images say, and the split by patient."""

import pytest

from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.kermany import LabelledImage, are_kermanys, parse_kermany_name
from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.datasets.split import split_training
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import BACTERIAL, NORMAL, PNEUMONIA_UNKNOWN_KIND, VIRAL
from pneumonia_core.phantoms.data_sets import kermany_name


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("IM-0115-0001", (NORMAL, "IM-0115")),
        ("NORMAL2-IM-0927-0001", (NORMAL, "NORMAL2-IM-0927")),
        ("IM-0660-0001-0001", (NORMAL, "IM-0660")),
        ("person1_bacteria_1", (BACTERIAL, "person1_bacteria")),
        ("person1000_virus_1681", (VIRAL, "person1000_virus")),
        ("person447_virus_921_1", (VIRAL, "person447_virus")),
        ("NORMAL-1049278-0001", (NORMAL, "NORMAL-1049278")),
        ("BACTERIA-7422-0001", (BACTERIAL, "BACTERIA-7422")),
        ("VIRUS-1234-0002", (VIRAL, "VIRUS-1234")),
        ("scan17", None),
        ("VIRUS-1234", None),
    ],
)
def test_kermany_names_say_class_and_patient(stem, expected):
    assert parse_kermany_name(stem) == expected


def images(patients: int) -> list[LabelledImage]:
    return [
        LabelledImage(ImageRef(f"file:///{label}-{patient}-{number}"), label, f"{label}-{patient}", "train")
        for label in range(3)
        for patient in range(patients)
        for number in range(2)
    ]


def test_no_patient_is_in_both_parts_and_every_class_is_in_each():
    training, validation = split_training(images(40))
    assert not {i.patient_id for i in training} & {i.patient_id for i in validation}
    assert {i.label for i in training} == {i.label for i in validation} == {0, 1, 2}
    few_training, few = split_training(images(2))
    assert {i.label for i in few_training} == {i.label for i in few} == {0, 1, 2}


def of_labels(*labels: int) -> list[LabelledImage]:
    return [
        LabelledImage(ref=image.ref, label=labels[image.label], patient_id=image.patient_id, split="train")
        for image in images(4)
        if image.label < len(labels)
    ]


def test_pneumonia_of_unknown_kind_is_split_alone_and_beside_known_kinds():
    for given in (
        of_labels(NORMAL, PNEUMONIA_UNKNOWN_KIND),
        [*images(4), *of_labels(PNEUMONIA_UNKNOWN_KIND)],
    ):
        parts = split_training(given)
        assert {i.label for i in parts[0]} == {i.label for i in parts[1]} == {i.label for i in given}


@pytest.mark.parametrize(
    ("labels", "absent"),
    [
        ((NORMAL, BACTERIAL), "no viral"),
        ((NORMAL, BACTERIAL, PNEUMONIA_UNKNOWN_KIND), "no viral"),
        ((PNEUMONIA_UNKNOWN_KIND,), "no normal"),
        ((NORMAL,), "no bacterial, viral"),
    ],
)
def test_a_kind_without_the_other_is_refused_and_so_is_pneumonia_without_normal(labels, absent):
    with pytest.raises(InvalidInput, match=rf"{absent} image.*label all of it 'pneumonia'"):
        split_training(of_labels(*labels))


def test_a_tenth_of_the_patients_is_validation_and_stays_it_whoever_comes():
    _, before = split_training(images(1000))
    _, after = split_training(images(2000))
    assert 3 * 2 * 80 < len(before) < 3 * 2 * 120
    known = {image.patient_id for image in images(1000)}
    assert {image.patient_id for image in after} & known == {image.patient_id for image in before}


def test_split_does_not_depend_on_the_order_of_the_images():
    forward, backward = split_training(images(30)), split_training(images(30)[::-1])
    assert set(forward[1]) == set(backward[1])


def test_a_class_without_images_is_refused():
    with pytest.raises(InvalidInput, match="viral"):
        split_training([image for image in images(20) if image.label != VIRAL])


def test_nothing_to_cut_validation_from_is_said():
    with pytest.raises(InvalidInput, match="only test images"):
        split_training([LabelledImage(ImageRef("file:///a"), NORMAL, "a", "test")])


def test_labels_table_is_read(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(
        "uri,label,patient_id,split\na.png,viral,p1,test\n/x/b.png,normal,p2,train\nc.png,pneumonia,p3,test\n"
    )
    read = read_labelled(str(table))
    assert {(i.uri, i.label, i.patient_id, i.split) for i in read} == {
        (f"file://{tmp_path}/c.png", PNEUMONIA_UNKNOWN_KIND, "p3", "test"),
        (f"file://{tmp_path}/a.png", VIRAL, "p1", "test"),
        ("file:///x/b.png", NORMAL, "p2", "train"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label,patient_id,split\na.png,viral,1,test\nb.png,viral,,train\n", "no patient_id"),
        ("uri,label,patient_id,split\na.png,viral\n", "cannot be read"),
        ("", "cannot be read"),
        ("uri,label,patient_id,split\nhttp://b/a.png,viral,1,test\n", "names no image"),
        ("uri,label,patient_id,split\ns3://me:secret@b/a.png,viral,1,test\n", r"s3://\*\*\*@b/a.png"),
        ("uri,label,patient_id,split\ns3://b/a.png?region=x,viral,1,test\n", r"a.png\?\*\*\*"),
        ("uri,label,patient_id,split\na.png,viral,1,test\nb.png,viral,NA,test\n", "no patient_id"),
        ("uri,label,split\na.png,viral,test\n", "patient_id is missing"),
        ("uri,label,patient_id,split,split\na.png,viral,1,test,test\n", "split is more than once"),
        (
            "uri,label,patient_id,split\na.png,viral,1,train\nb.png,viral,2,train\na.png,viral,3,train\n",
            "a.png' is named by",
        ),
        (
            "uri,label,patient_id,split\nx/../a.png,viral,1,train\n./a.png,viral,1,train\n",
            "a.png' is named by",
        ),
    ],
)
def test_labels_table_that_would_mislead_is_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_labelled(str(tmp_path / "labels.csv"))


def test_patients_whose_keys_are_numbers_stay_apart(tmp_path):
    keys = ["007", "7", "1.1", "1.10", "12345678901234567890", "12345678901234567891"]
    rows = "".join(f"{number}.png,viral,{key},test\n" for number, key in enumerate(keys))
    (tmp_path / "LABELS.CSV").write_text(f"uri,label,patient_id,split\n{rows}")
    assert [image.patient_id for image in read_labelled(str(tmp_path / "LABELS.CSV"))] == keys


OFFICIAL_TEST = {
    "NORMAL": ["IM-0001-0001.jpeg", "NORMAL2-IM-0001-0001.jpeg"],
    "PNEUMONIA": ["person1_virus_6.jpeg", "person100_bacteria_475.jpeg"],
}


@pytest.fixture
def official_test(tmp_path):
    """The test split as it is published, alone, with what a Mac and Windows leave in its folders."""
    split = tmp_path / "archive" / "chest_xray" / "test"
    for kind, names in OFFICIAL_TEST.items():
        (split / kind).mkdir(parents=True)
        for name in [*names, ".DS_Store", f"._{names[0]}", "Thumbs.db"]:
            (split / kind / name).touch()
    (split.parent / "__MACOSX" / "test" / "NORMAL").mkdir(parents=True)
    return split


def test_official_test_split_is_read_from_its_own_folder_and_from_those_above(official_test, monkeypatch):
    monkeypatch.chdir(official_test)
    for data in (official_test.parents[1], official_test.parent, official_test, "."):
        read = read_labelled(str(data))
        assert [(i.label, i.patient_id, i.split) for i in read] == [
            (NORMAL, "IM-0001", "test"),
            (NORMAL, "NORMAL2-IM-0001", "test"),
            (BACTERIAL, "person100_bacteria", "test"),
            (VIRAL, "person1_virus", "test"),
        ]


def test_folders_of_other_data_say_the_class_and_not_the_kind(tmp_path, caplog):
    for name in ("NORMAL/00000013_005.png", "PNEUMONIA/00000013_006.png", "PNEUMONIA/scan.png"):
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).touch()
    assert [(image.label, image.patient_id) for image in read_labelled(str(tmp_path))] == [
        (NORMAL, "00000013"),
        (PNEUMONIA_UNKNOWN_KIND, "00000013"),
        (PNEUMONIA_UNKNOWN_KIND, "PNEUMONIA/scan"),
    ]
    assert "1 of 3 file names do not tell the patient" in caplog.text


@pytest.mark.parametrize(
    "name", ["NORMAL/person1_virus_6.jpeg", "PNEUMONIA/IM-0001-0001.jpeg", "NORMAL/a.png"]
)
def test_name_that_contradicts_its_folder_or_is_unlike_the_others_is_refused(official_test, name):
    (official_test / name).touch()
    with pytest.raises(InvalidInput, match="does not say class and patient"):
        read_labelled(str(official_test))


def test_classes_without_a_split_are_refused(official_test, tmp_path):
    images = official_test.rename(tmp_path / "images")
    with pytest.raises(InvalidInput, match="NORMAL has a class, but no folder's name says of which split"):
        read_labelled(str(images))


def test_class_whose_folder_cannot_be_read_is_not_left_out(official_test):
    normal = official_test / "NORMAL"
    normal.rename(official_test / "moved")
    normal.symlink_to(normal)
    with pytest.raises(InvalidInput, match="a class would be missing"):
        read_labelled(str(official_test))


def test_data_that_are_none_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(InvalidInput, match="no such data set"):
        read_labelled(str(tmp_path / "absent"))
    with pytest.raises(InvalidInput, match="no labelled images"):
        read_labelled(str(tmp_path))


def test_official_split_is_cut_by_patient(shared_data):
    training, validation = split_training(read_labelled(str(shared_data / "kermany224")))
    assert len(training) + len(validation) == 5216 + 16
    assert not {i.patient_id for i in training} & {i.patient_id for i in validation}


TRAINED_ON = ["IM-0115-0001", "person253_bacteria_1152", "person83_virus_156"]


@pytest.mark.parametrize(
    ("stems", "known"),
    [
        (TRAINED_ON, True),
        (["IM-0115-0001", "NORMAL2-IM-0927-0001", "person1_bacteria_1"], True),
        (["NORMAL-1049278-0001", "BACTERIA-7422-0001", "VIRUS-1234-0001"], True),
        (["NORMAL2-IM-0927-0001", *(f"adult_{number}" for number in range(50))], False),
        (["IM-0001-0001", "person1_bacteria_1", "person1_virus_1"], False),
        (["IM-0001-0001", "person300_bacteria_1", "person300_virus_2"], False),
        ([*TRAINED_ON, "person300_virus_1"], False),
        ([], False),
    ],
)
def test_kermanys_data_are_known_by_all_their_names(stems, known):
    assert are_kermanys([f"data/train/{stem}.jpeg" for stem in stems]) == known


@pytest.mark.parametrize("images_per_patient", range(1, 8))
@pytest.mark.parametrize("patients", [2, 15, 100, 300, 1000])
def test_phantoms_are_not_taken_for_kermanys_data(images_per_patient, patients):
    names = [
        kermany_name(label, patient, patient * images_per_patient + image, image)
        for label in range(3)
        for patient in range(patients)
        for image in range(images_per_patient)
    ]
    assert not are_kermanys(names)


def test_any_part_of_the_published_data_is_known(shared_data):
    images = [image.uri for image in read_labelled(str(shared_data / "kermany224"))]
    assert are_kermanys(images)
    first_series = [path for path in images if "NORMAL2" not in path]
    assert are_kermanys(first_series)
    assert all(are_kermanys(first_series[start::100]) for start in range(100))
