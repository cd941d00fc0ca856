"""Which rows of the table an evaluation measures, and what it refuses before it starts; without Ray."""

import os

import pytest

from jobs.evaluation.evaluate import evaluate_bundle
from jobs.evaluation.labelled_scores import rows_of_current_versions
from jobs.evaluation.options import EvaluateOptions
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.datasets.kermany import LabelledImage
from pneumonia_core.errors import InvalidInput
from pneumonia_core.findings import NORMAL
from pneumonia_core.storage.ranges import stat_file


def test_image_that_was_away_or_another_counts_as_what_it_is_again(tmp_path):
    """Nothing is scored again: the table has its row. The newest row is of when it was away."""
    file = tmp_path / "a.png"
    file.write_bytes(b"as it was")
    os.utime(file, ns=(1, 1))
    uri = f"file://{file}"
    image = LabelledImage(ImageRef(uri), NORMAL, "p", "test")
    rows = [
        {"image_uri": uri, "image_version": version, "status": status}
        for version, status in ((stat_file(uri).version, "scored"), ("9-2", "scored"), ("absent", "rejected"))
    ]
    assert rows_of_current_versions([image], rows) == [rows[0]]
    file.write_bytes(b"another since")
    assert rows_of_current_versions([image], rows) == [rows[-1]]
    file.unlink()
    assert rows_of_current_versions([image], rows) == [rows[-1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "s3://bucket/evaluation"}, "a folder on this machine"),
        ({"output": "data/labels.csv"}, "cannot create this folder"),
        ({"split": "train"}, "has no train images; it has test"),
        ({"split": "validation"}, "only test images"),
        ({"model": "absent"}, "absent"),
        ({"by": "sex,site"}, "cannot group by 'site': .* is not a table with such a column"),
    ],
)
def test_wrong_input_is_refused_before_ray_starts(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [
        "uri,label,patient_id,split",
        "a.png,normal,p,test",
        "b.png,viral,q,test",
        "c.png,bacterial,r,test",
    ]
    (tmp_path / "data" / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(InvalidInput, match=message):
        evaluate_bundle(
            EvaluateOptions(**{"model": "m", "data": "data/labels.csv", "output": "out", **options})
        )
    assert not list(tmp_path.glob("s3:*"))
