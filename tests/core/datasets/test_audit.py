"""What a survey amounts to: counts, cues that give the class away, duplicates, leaks."""

import json

import numpy as np
import pyarrow as pa
import pytest

from pneumonia_core.datasets.annotations import Annotation, annotate
from pneumonia_core.datasets.audit import audit
from pneumonia_core.datasets.image_facts import IMAGE_FACTS
from pneumonia_core.datasets.shortcuts import shortcut_aurocs

SCHEMA = pa.schema(
    [("image_uri", pa.string()), ("archive", pa.string()), ("carried", pa.string()), *IMAGE_FACTS]
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("train/NORMAL/IM-0115-0001.jpeg", Annotation("normal", "IM-0115", "train")),
        ("test/PNEUMONIA/person1_virus_6.jpeg", Annotation("viral", "person1_virus", "test")),
        ("a.zip!/val/PNEUMONIA/x.png", Annotation("pneumonia", None, "val")),
        ("Bacterial/x.png", Annotation("bacterial", None, None)),
        ("IM-0115-0001.dcm", Annotation()),
        ("PNEUMONIA/IM-0115-0001.jpeg", Annotation("pneumonia", None, None)),
    ],
)
def test_paths_say_class_patient_and_split(path, expected):
    assert annotate(f"file:///d/set/{path}", "file:///d/set") == expected


def test_folders_above_the_archive_say_nothing_but_its_own_name_does():
    assert annotate("file:///test/NORMAL/set/x.png", "file:///test/NORMAL/set") == Annotation()
    assert annotate("file:///d/train/NORMAL/x.png", "file:///d/train").split == "train"


def test_columns_of_a_table_win_over_the_path():
    carried = json.dumps({"label": "viral", "patient_id": "7", "split": "test"})
    assert annotate("file:///d/train/NORMAL/x.png", "file:///d/t.csv", carried) == Annotation(
        "viral", "7", "test"
    )


def test_empty_cells_of_a_table_say_nothing():
    carried = json.dumps({"label": "", "patient_id": "", "split": ""})
    assert annotate("file:///d/a.png", "file:///d/t.csv", carried) == Annotation()


def facts(count: int, **columns: object) -> dict[str, list[object]]:
    plain = {
        "width": 100,
        "height": 100,
        "size_bytes": 5000,
        "quantisation": "q75",
        "mode": "L",
        "format": "jpeg",
        "brightness": 120.0,
        "contrast": 50.0,
        "sharpness": 0.1,
        "border": 0.0,
        "patient": None,
    }
    return {name: columns.get(name, [value] * count) for name, value in plain.items()}  # type: ignore[misc]


def found(columns: dict[str, list[object]], ill: np.ndarray) -> dict[str, tuple[float, bool]]:
    return {cue["cue"]: (cue["auroc"], cue["flagged"]) for cue in shortcut_aurocs(columns, ill)}


def test_constant_cues_are_of_no_help():
    ill = np.arange(101) % 3 > 0
    assert set(found(facts(101), ill).values()) == {(0.5, False)}


def test_quantisation_table_that_gives_the_class_away_is_flagged():
    ill = np.arange(200) % 4 > 0
    tables = ["q75" if sick else "ab12cd34" for sick in ill]
    cues = found(facts(200, quantisation=tables), ill)
    assert cues["JPEG table"] == (1.0, True)
    assert cues["colour mode"] == (0.5, False)


def test_table_that_each_image_has_for_itself_says_nothing():
    ill = np.arange(200) % 2 > 0
    assert found(facts(200, quantisation=[str(n) for n in range(200)]), ill)["JPEG table"] == (0.5, False)


def test_size_and_aspect_are_cues_and_bytes_of_files_encoded_alike_are_not():
    ill = np.arange(200) % 2 > 0
    sizes = [4000 + int(sick) for sick in ill]
    assert found(facts(200, size_bytes=sizes), ill)["bytes"] == (1.0, False)
    widths = [100 + 50 * int(sick) for sick in ill]
    cues = found(facts(200, size_bytes=sizes, width=widths), ill)
    assert cues["bytes"] == (1.0, True)
    assert cues["aspect (width / height)"] == (1.0, True)


def test_borders_are_a_cue_and_what_disease_changes_is_shown_alone():
    ill = np.arange(200) % 2 > 0
    wide = [0.1 if sick else 0.0 for sick in ill]
    cues = found(facts(200, border=wide, brightness=wide), ill)
    assert cues["border"] == (1.0, True)
    assert cues["brightness"] == (1.0, False)


def test_series_of_patients_that_are_mostly_of_one_class_are_told_apart():
    """Numbers without order: even hundreds are ill. Patients without a number are left out."""
    ill = np.arange(400) // 100 % 2 == 0
    patients = [f"ward2-{n}" for n in range(400)]
    assert found(facts(400, patient=patients), ill)["file series"] == (1.0, False)
    assert "file series" not in found(facts(400, patient=["a"] * 400), ill)


def test_cues_to_the_kind_are_those_among_pneumonia_of_a_known_kind():
    rows = []
    for label, border in (("normal", 0.5), ("bacterial", 0.0), ("viral", 0.2), ("pneumonia", 0.9)):
        for n in range(25):
            carried = json.dumps({"label": label, "patient_id": f"{label}{n}", "split": "train"})
            rows.append({"image_uri": f"{label}{n}", "archive": "file:///t.csv", "carried": carried,
                         "sha256": f"{label}{n}", "width": 9, "height": 9, "border": border})  # fmt: skip
    summary, _ = audit(pa.Table.from_pylist(rows, schema=SCHEMA))
    aurocs = {cue["cue"]: cue["auroc"] for cue in summary["kind_cues"]["train"]}
    assert aurocs["border"] == 0.0
    assert any("bacterial and viral pneumonia in train" in concern for concern in summary["concerns"])
    assert {cue["cue"]: cue["auroc"] for cue in summary["cues"]["train"]}["border"] == 0.3333


def test_few_images_of_a_class_say_nothing_of_cues():
    assert shortcut_aurocs(facts(30), np.arange(30) < 15) == []


def test_duplicates_across_classes_and_splits_and_patients_across_splits_are_counted():
    rows = []
    for n, (path, digest, patient, split, label) in enumerate(
        [
            ("a", "x", "p1", "train", "normal"),
            ("b", "x", "p2", "test", "viral"),
            ("c", "y", "p3", "train", "viral"),
            ("d", "y", "p3", "train", "bacterial"),
            ("e", "z", "p2", "train", "viral"),
        ]
    ):
        carried = json.dumps({"label": label, "patient_id": patient, "split": split})
        looks = np.random.default_rng(n).bytes(32)
        rows.append({"image_uri": path, "archive": "file:///t.csv", "carried": carried, "sha256": digest,
                     "looks": looks, "width": 10, "height": 20, "size_bytes": 5})  # fmt: skip
    rows.append({"image_uri": "f", "archive": "file:///t.csv", "reason": "empty"})
    summary, details = audit(pa.Table.from_pylist(rows, schema=SCHEMA))
    assert summary["duplicates"] == {
        "groups": 2, "images": 4, "pairs": 2, "across_classes": 1, "across_splits": 1,
    }  # fmt: skip
    assert summary["patients"] == {"known": 3, "across_splits": 1}
    assert details["patients_across_splits"] == [{"patient": "p2", "splits": ["test", "train"]}]
    assert details["duplicates"] == [["a", "b"], ["c", "d"]]
    assert details["rejected"] == [{"uri": "f", "reason": "empty"}]
    assert summary["classes"]["train"] == {"bacterial": 1, "normal": 1, "viral": 2}
    assert summary["sizes"]["width"] == {"min": 10, "median": 10.0, "max": 10}
    assert any("both classes" in concern for concern in summary["concerns"])
    json.dumps([summary, details], allow_nan=False)


def test_archive_without_classes_has_no_class_columns():
    rows = [{"image_uri": f"file:///a/{n}", "archive": "file:///a", "reason": "blank"} for n in range(3)]
    summary, _ = audit(pa.Table.from_pylist(rows, schema=SCHEMA))
    assert summary["classes"] is None
    assert summary["patients"] is None
    assert summary["cues"] == summary["kind_cues"] == {}
    assert summary["concerns"] == ["3 images cannot be read."]
