"""Which rows of the table an evaluation measures, and what it refuses before it starts; without Ray."""

import os

import pytest

from jobs.evaluation.evaluate import _say_robustness, evaluate_bundle
from jobs.evaluation.labelled_scores import measured_images, rows_of_current_versions
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import InvalidInput, PneumoniaError
from pneumonia_core.evaluation.perturbations import PERTURBATIONS
from pneumonia_core.findings import NORMAL
from pneumonia_core.storage.ranges import stat_file


def test_image_that_was_away_or_another_counts_as_what_it_is_again(tmp_path):
    """Nothing is scored anew: the table has its row. The newest row is of when it was away."""
    file = tmp_path / "a.png"
    file.write_bytes(b"as it was")
    os.utime(file, ns=(1, 1))
    uri = f"file://{file}"
    image = LabelledImage(ImageRef(uri), NORMAL, "p", "test")
    rows = [
        {"image_uri": uri, "image_version": version, "status": status}
        for version, status in ((stat_file(uri).version, "scored"), ("9-2", "scored"), ("absent", "rejected"))
    ]
    assert rows_of_current_versions([image], rows) == {uri: rows[0]}
    file.write_bytes(b"another since")
    assert rows_of_current_versions([image], rows) == {uri: rows[-1]}
    file.unlink()
    assert rows_of_current_versions([image], rows) == {uri: rows[-1]}


def test_reasons_are_named_where_no_image_could_be_scored(tmp_path):
    image = LabelledImage(ImageRef(f"file://{tmp_path}/a.png"), NORMAL, "p", "test")
    with pytest.raises(PneumoniaError, match=r"none of the images could be scored \(1 not_found\)"):
        measured_images([image], {image.uri: {"status": "rejected", "reject_reason": "not_found"}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "s3://bucket/evaluation"}, "a folder on this machine"),
        ({"output": "data/labels.csv"}, "cannot create this folder"),
        ({"split": "train"}, "has no train images; it has test"),
        ({"split": "validation"}, "only test images"),
        ({"model": "absent"}, "no such folder"),
    ],
)
def test_wrong_input_is_refused_before_ray_starts(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labels.csv").write_text("uri,label,patient_id,split\na.png,normal,p,test\n")
    with pytest.raises(InvalidInput, match=message):
        evaluate_bundle(**{"model": "m", "data": "data/labels.csv", "output": "out", **options})
    assert not list(tmp_path.glob("s3:*"))


def test_robustness_table_fits_a_terminal(capsys):
    undefined = {"value": None, "low": None, "high": None}
    row = {
        "auroc_change": {**undefined, "value": -0.1234},
        "mean_change": 0.1,
        "p99_change": 0.9,
        "shift_difference": None,
    }
    _say_robustness(
        {
            "auroc": undefined,
            "images": 123_456,
            "rows": [{"label": one.label, **row} for one in PERTURBATIONS],
        }
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + len(PERTURBATIONS)
    assert {len(line) for line in lines} == {74}
    assert lines[1].split()[-4:] == ["-0.123", "0.100", "0.900", "–"]
