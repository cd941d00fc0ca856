"""What is unlike the training data is reported in its row, in the run's counts, and to the reader."""

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.images.dicom_files import dicom_file, exposed_phantom
from support.scoring import rows, score, scoring_request

from jobs.evaluation.evaluate import evaluate_bundle
from jobs.evaluation.options import EvaluateOptions
from jobs.runs import command as runs_command
from pneumonia_core.findings import CLASSES, findings_sets
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.phantoms.radiograph import phantom

# By DICOM's PatientAge, read leniently; the bundle's training patients are one to five years old.
AGES = {"062Y": False, "62": False, "006Y": False, "006M": False, "018M": True, "005Y": True, "": True}


def jpeg(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return file.getvalue()


@pytest.fixture(scope="module")
def night(tmp_path_factory, guarded_bundle, ray_here):
    """The results of an archive with X-rays, DICOM of every age, other pictures, and a broken file."""
    folder = tmp_path_factory.mktemp("domain")
    archive, results = folder / "archive", folder / "results"
    archive.mkdir()
    for number in range(20):
        (archive / f"chest{number}.jpeg").write_bytes(jpeg(phantom(number % 3, 900 + number, 0, (64, 64))))
        (archive / f"noise{number}.jpeg").write_bytes(
            jpeg(np.random.default_rng(number).integers(0, 255, (64, 64), np.uint8))
        )
    for age in AGES:
        (archive / f"age_{age}.dcm").write_bytes(dicom_file(exposed_phantom(), PatientAge=age))
    (archive / "broken.jpeg").write_bytes(b"")
    result = score(results, scoring_request(guarded_bundle, archive))
    return results, result, {row["image_uri"].rpartition("/")[2]: row for row in rows(results).to_pylist()}


def test_rows_tell_the_domain_score_and_whether_it_is_in_the_domain(night, guarded_bundle):
    _, _, table = night
    threshold = guarded_bundle.domain.threshold
    for name, row in table.items():
        if name.endswith(".jpeg") and row["status"] == "scored":
            assert row["in_domain"] == (row["domain_score"] <= threshold), name
    assert not any(row["in_domain"] for name, row in table.items() if name.startswith("noise"))
    assert sum(row["in_domain"] for name, row in table.items() if name.startswith("chest")) >= 15
    assert (table["broken.jpeg"]["domain_score"], table["broken.jpeg"]["in_domain"]) == (None, None)


def test_rows_tell_the_findings_that_cannot_be_ruled_out(night, guarded_bundle):
    _, _, table = night
    scored = [row for row in table.values() if row["status"] == "scored"]
    probabilities = [[row[f"p_{name}"] for name in CLASSES] for row in scored]
    sets = findings_sets(probabilities, guarded_bundle.thresholds, guarded_bundle.spec.conformal)
    assert [row["findings_set"] for row in scored] == sets.tolist()
    assert all(row["finding"] in row["findings_set"].split(",") for row in scored)
    assert table["broken.jpeg"]["findings_set"] is None


def test_age_outside_the_training_ages_is_out_of_domain(night, guarded_bundle):
    _, _, table = night
    found = {age: table[f"age_{age}.dcm"] for age in AGES}
    # The same picture in each: its score is the same, the age alone differs.
    scores = {row["domain_score"] for row in found.values()}
    assert len(scores) == 1
    familiar = scores.pop() <= guarded_bundle.domain.threshold
    assert {age: row["in_domain"] for age, row in found.items()} == {
        age: familiar and inside for age, inside in AGES.items()
    }
    assert familiar


def test_run_counts_what_is_out_of_domain(night):
    results, result, table = night
    expected = sum(row["in_domain"] is False for row in table.values())
    assert expected >= 24
    assert result["out_of_domain"] == expected
    record = json.loads(next((results / "runs").glob("*/run.json")).read_text())
    assert record["counts"]["out_of_domain"] == expected
    assert f"Out of domain: {expected} of" in next((results / "runs").glob("*/run.html")).read_text()
    shown = CliRunner().invoke(runs_command, [str(results)]).stdout
    assert "out of domain" in shown.splitlines()[0]
    assert f" {expected} " in shown.splitlines()[1]


def test_bundle_without_a_guard_leaves_the_columns_null(tmp_path, tiny_bundle, ray_here):
    archive, results = tmp_path / "archive", tmp_path / "results"
    archive.mkdir()
    (archive / "adult.dcm").write_bytes(dicom_file(exposed_phantom(), PatientAge="062Y"))
    result = score(results, scoring_request(tiny_bundle, archive))
    row = rows(results).to_pylist()[0]
    assert (row["status"], row["domain_score"], row["in_domain"]) == ("scored", None, None)
    assert row["findings_set"] is None
    assert result["out_of_domain"] is None


def test_evaluation_tells_how_much_of_the_set_is_out_of_domain(tmp_path, guarded_bundle, ray_here):
    write_labelled(tmp_path / "data", 6, 1, seed=4)
    evaluate_bundle(
        EvaluateOptions(
            model=str(guarded_bundle.path),
            data=str(tmp_path / "data"),
            split="train",
            output=str(tmp_path / "out"),
            robustness=0,
            explanations=0,
            bootstrap=20,
        )
    )
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    reported = evaluation["domain"]
    assert reported["threshold"] == guarded_bundle.domain.threshold
    (scores,) = (tmp_path / "out" / "results").iterdir()
    table = rows(scores).to_pylist()
    flagged = [row["in_domain"] is False for row in table]
    sizes = [row["findings_set"].count(",") + 1 for row in table]
    assert evaluation["findings_sets"]["mean_size"]["value"] == pytest.approx(np.mean(sizes))
    assert reported["flagged_share"] == np.mean(flagged)
    assert "out of domain" in (tmp_path / "out" / "evaluation.html").read_text()
