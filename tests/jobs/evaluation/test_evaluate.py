"""`pneumonia evaluate` over real Ray: scores, groups, perturbations, and its page."""

import json

import numpy as np
import pytest
from deltalake import DeltaTable
from support.buckets import BUCKET, s3_server, using
from support.images.archived import zip_bytes
from support.images.dicom_files import dicom_file
from support.pages import assert_self_contained
from support.scoring import pneumonia

from jobs.evaluation.compare import compare_bundles
from jobs.evaluation.evaluate import evaluate_bundle
from jobs.evaluation.explained_mistakes import read_and_explain
from jobs.evaluation.labelled_scores import results_location
from jobs.evaluation.options import EvaluateOptions
from jobs.evaluation.perturbed_scores import score_perturbed
from jobs.scoring.options import ScoreOptions
from jobs.scoring.request import make_request
from pneumonia_core.archives.entries import ImageRef
from pneumonia_core.bundles.bundle import read_keras_model
from pneumonia_core.errors import InvalidInput
from pneumonia_core.evaluation.perturbations import PERTURBATIONS
from pneumonia_core.findings import BACTERIAL, NORMAL, p_pneumonia
from pneumonia_core.phantoms.data_sets import write_labelled
from pneumonia_core.phantoms.radiograph import phantom
from pneumonia_core.reports.mistakes import Mistake, MistakeKind
from pneumonia_core.runs.registry import open_run
from pneumonia_core.storage.s3 import client as s3_client


def options(bundle, data, folder, robustness=0, explanations=0, **others):
    return EvaluateOptions(
        model=str(bundle.path),
        data=str(data),
        split="train",
        output=str(folder),
        robustness=robustness,
        explanations=explanations,
        bootstrap=50,
        **others,
    )


@pytest.fixture(scope="module")
def evaluated(ray_here, tiny_bundle, tmp_path_factory):
    """The document, the folder, and what the command returned."""
    data, folder = tmp_path_factory.mktemp("labelled"), tmp_path_factory.mktemp("evaluated")
    write_labelled(data, 16, 1, seed=4)
    result = evaluate_bundle(options(tiny_bundle, data, folder, robustness=12, explanations=12))
    return json.loads((folder / "evaluation.json").read_text()), folder, result, data


def test_evaluation_has_groups_and_robustness_also_on_its_page(evaluated):
    document, folder, result, data = evaluated
    assert result["state"] == "done"
    factors = {row["factor"]: 0 for row in document["subgroups"]}
    assert list(factors) == ["image size", "colour mode"]
    for row in document["subgroups"]:
        factors[row["factor"]] += row["images"]
    assert set(factors.values()) == {document["images"]}
    assert [row["group"] for row in document["subgroups"] if row["factor"] == "colour mode"] == ["L"]
    assert [row["task"] for row in document["heaviest_patients"]] == list(document["tasks"])
    assert all(row["image"].startswith(f"file://{data}") for row in document["heaviest_patients"])
    table = document["robustness"]
    assert table["images"] == 12
    assert table["images_by_class"] == {"normal": 6, "bacterial": 3, "viral": 3}
    names = [perturbation.name for perturbation in PERTURBATIONS]
    assert [row["name"] for row in table["rows"]] == names[: len(table["rows"])]
    assert len(table["rows"]) == len(names) - 2 * (table["median_aspect"] is None)
    page = (folder / "evaluation.html").read_text()
    assert "What moves the scores" in page
    assert "Parts of the images" in page


def test_page_shows_the_worst_mistakes_read_again(evaluated):
    document, folder, _, data = evaluated
    page = (folder / "evaluation.html").read_text()
    outline = assert_self_contained(page)
    confusion = np.array(document["three_class"]["confusion"])
    wrong = min(12, confusion.sum() - np.trace(confusion))
    assert outline.tags["img"] == 2 * wrong > 0
    mistakes = page.partition("The worst mistakes")[2]
    shown = {name for name in files_in(data) if name.rpartition("/")[2] in mistakes}
    assert len(shown) == wrong
    assert "15 × 15 cells" in page
    assert "could not be read again" not in page


def test_explained_mistake_that_is_gone_is_counted(evaluated, tiny_bundle):
    _, _, _, data = evaluated
    there = sorted(data.rglob("*.jpeg"))[0].as_uri()
    refs = [ImageRef("file:///absent.jpeg"), ImageRef(there)]
    mistakes = [Mistake(number, MistakeKind.FALSE_ALARM, NORMAL, BACTERIAL, 0.9) for number in range(2)]
    squares, maps = read_and_explain(read_keras_model(tiny_bundle), refs, tiny_bundle.spec, mistakes)
    assert squares[0] is None
    assert squares[1].shape == (64, 64)
    assert maps.maps.shape == (1, 15, 15)


def test_perturbed_images_are_first_scored_as_they_are(evaluated, tiny_bundle):
    _, folder, _, _ = evaluated
    (scores,) = (folder / "results").glob("*/scores")
    rows = DeltaTable(str(scores)).to_pyarrow_table().to_pylist()[:12]
    refs = [ImageRef(uri) for uri in [*(row["image_uri"] for row in rows), "file:///absent.jpeg"]]
    kept, probabilities = score_perturbed(
        refs, np.arange(13) < 6, {False: 1.3, True: 1.0}, tiny_bundle, rows[0]["engine"], "auto"
    )
    assert kept.tolist() == list(range(12))
    assert probabilities.shape == (12, 1 + len(PERTURBATIONS), 3)
    expected = [row["p_pneumonia"] for row in rows]
    assert p_pneumonia(probabilities[:, 0]) == pytest.approx(expected, abs=1e-6)


def test_evaluated_again_without_robustness_it_has_no_such_table(evaluated, tiny_bundle):
    document, folder, _, data = evaluated
    evaluate_bundle(options(tiny_bundle, data, folder, prevalence=0.1))
    again = json.loads((folder / "evaluation.json").read_text())
    assert again["robustness"] is None
    assert again["prevalence"]["assumed"] == 0.1
    # Weights to a prevalence change no ranking, but the last digit of its sum.
    before, after = (one["tasks"]["pneumonia_vs_normal"]["auroc"] for one in (document, again))
    assert after == pytest.approx(before)
    assert "What moves the scores" not in (folder / "evaluation.html").read_text()


def test_other_images_evaluated_into_the_same_folder_do_not_resume_a_killed_run(tiny_bundle, tmp_path):
    # The same for both, as the manifest of an evaluation is.
    request = make_request(ScoreOptions((str(tmp_path),), str(tiny_bundle.path), rescore="all"), tiny_bundle)

    def begun(uris):
        run = open_run(results_location(tmp_path, request, uris), request, 0, fresh=False)
        run.advance("scoring", listing_complete=True)
        run.unlock()
        return run

    killed = begun(["file:///test.jpeg"])
    assert not begun(["file:///validation.jpeg"]).resumed
    again = begun(["file:///test.jpeg"])
    assert again.resumed
    assert again.run_id == killed.run_id


SAME = ("images", "patients", "images_by_class", "tasks", "three_class", "subgroups", "rejected")


def test_set_in_a_zip_is_evaluated_as_the_folder_is(evaluated, tiny_bundle, tmp_path):
    expected, _, _, data = evaluated
    (tmp_path / "xrays.zip").write_bytes(zip_bytes(files_in(data)))
    evaluate_bundle(options(tiny_bundle, tmp_path / "xrays.zip", tmp_path / "out", robustness=4))
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {key: document[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert document["robustness"]["images"] == 4


@pytest.mark.slow
def test_set_in_a_bucket_is_evaluated_as_the_folder_is(evaluated, tiny_bundle, tmp_path):
    expected, _, _, data = evaluated
    with s3_server() as endpoint, using(endpoint):
        s3_client.client().create_bucket(Bucket=BUCKET)
        for name, content in files_in(data).items():
            s3_client.client().put_object(Bucket=BUCKET, Key=f"xrays/{name}", Body=content)
        done = pneumonia(
            "evaluate", "--model", tiny_bundle.path, "--data", f"s3://{BUCKET}/xrays", "--split", "train",
            "--output", tmp_path / "out", "--robustness", 4, "--bootstrap", 50, timeout=540,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {key: document[key] for key in SAME} == {key: expected[key] for key in SAME}
    assert document["robustness"]["images"] == 4


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpeg"))}


@pytest.fixture(scope="module")
def table_of_dicom(tmp_path_factory):
    """A labels table of 24 radiographs with age and sex in DICOM, and the site in a column of its own."""
    folder = tmp_path_factory.mktemp("hospital")
    lines = ["uri,label,patient_id,split,site"]
    for number in range(24):
        label = ("normal", "pneumonia", "viral")[number % 3]
        content = dicom_file(
            phantom(number % 3, number, 0, (96, 96)),
            PatientSex="FM"[number % 2],
            PatientAge=f"{number + 10:03d}Y",
        )
        (folder / f"{number}.dcm").write_bytes(content)
        lines.append(f"{number}.dcm,{label},p{number // 2},test,{'North' if number < 8 else 'South'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def test_groups_come_from_dicom_and_from_the_labels_table(ray_here, tiny_bundle, table_of_dicom, tmp_path):
    asked = EvaluateOptions(
        str(tiny_bundle.path),
        str(table_of_dicom),
        str(tmp_path),
        by="sex,age,site",
        bootstrap=50,
        robustness=0,
    )
    evaluate_bundle(asked)
    document = json.loads((tmp_path / "evaluation.json").read_text())
    groups = [(row["factor"], row["group"], row["images"]) for row in document["subgroups"]]
    assert groups[:6] == [
        ("sex", "F", 12), ("sex", "M", 12), ("age", "5 to under 18 years", 8),
        ("age", "18 to under 40 years", 16), ("site", "North", 8), ("site", "South", 16),
    ]  # fmt: skip
    assert document["images_by_class"]["pneumonia_unknown_kind"] == 8
    assert document["tasks"]["pneumonia_vs_normal"]["images"] == 24
    page = (tmp_path / "evaluation.html").read_text()
    assert "South" in page
    assert "Planted" not in page


def test_two_models_are_compared_on_the_same_images(
    ray_here, tiny_bundle, guarded_bundle, table_of_dicom, tmp_path
):
    models = [str(tiny_bundle.path), str(guarded_bundle.path)]
    asked = EvaluateOptions(models[0], str(table_of_dicom), str(tmp_path), bootstrap=50, robustness=0)
    result = compare_bundles(models, asked)
    (pair,) = json.loads((tmp_path / "comparison.json").read_text())["pairs"]
    names = [tiny_bundle.model_id, guarded_bundle.model_id]
    assert [pair["first"], pair["second"]] == names == list(result["models"])
    assert pair["images"] == 24
    row = pair["differences"][0]
    for name, value in zip(names, (row["first"], row["second"]), strict=True):
        document = json.loads((tmp_path / name / "evaluation.json").read_text())
        assert document["tasks"]["pneumonia_vs_normal"]["auroc"]["value"] == pytest.approx(value)
    assert result["verdicts"][0] in (tmp_path / "comparison.html").read_text()


def test_a_model_is_not_compared_with_itself(tiny_bundle, tmp_path):
    models = [str(tiny_bundle.path)] * 2
    with pytest.raises(InvalidInput, match="given more than once"):
        compare_bundles(models, EvaluateOptions(models[0], "absent", str(tmp_path)))
