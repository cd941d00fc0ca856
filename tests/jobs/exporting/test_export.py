"""`pneumonia export`: from a bundle and labelled files to a bundle with one more engine, and scores of it."""

import json
import sys

import pytest
from click.testing import CliRunner
from support.scoring import rows, score, scoring_request
from support.tiny_bundles import write_guarded_tiny_bundle

from jobs.cli import main
from pneumonia_core.bundles.bundle import open_bundle
from pneumonia_core.bundles.capabilities import measure_capabilities
from pneumonia_core.bundles.engines import FLOAT16_GRAPH, INT8_ENGINE, ONNX_ENGINE
from pneumonia_core.phantoms.data_sets import write_labelled


def export(bundle, data, models, engine=INT8_ENGINE):
    words = [bundle, "--engine", engine, "--data", data, "--models", models]
    return CliRunner().invoke(main, ["export", *map(str, words)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_guarded_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("engine", "precision", "package"), [(INT8_ENGINE, "int8", "nncf"), (ONNX_ENGINE, "float32", "tf2onnx")]
)
def test_exported_engine_scores_in_its_precision(ray_here, bundle, tmp_path, engine, precision, package):
    pytest.importorskip(package, reason="the extra is not installed")
    if not measure_capabilities(look_for_gpus=False).can_compute(precision, on_gpu=False):
        pytest.skip(f"this processor does not multiply {precision}")
    paths = write_labelled(tmp_path / "data", 6, 1, size=(40, 60))
    done = export(bundle.path, tmp_path / "data", tmp_path / "models", engine)
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    assert "Statistics collection" not in done.stderr
    result = json.loads(line)
    extended = open_bundle(result["bundle"])
    assert result["model_id"] == extended.model_id == bundle.model_id
    report = extended.engines[engine]
    assert result["findings_agreement"] == report.findings_agreement
    assert result["parity_passed"] == report.parity_passed
    assert ("did not pass" in done.stderr) == (not report.parity_passed)
    measured = extended.reports[engine]
    assert all(f"{engine} in {each}, on " in done.stderr for each in measured)
    assert ("on GPUs onnxruntime computes in float16" in done.stderr) == ("float16" in result["passed_in"])
    tests = sum("/test/" in str(path) for path in paths)
    used = result["calibration_images"] + result["held_back_images"]
    assert used == len(paths) - tests if engine == INT8_ENGINE else 0 < used < len(paths) - tests
    request = scoring_request(extended, tmp_path / "data", engine=engine, precision="auto")
    record = score(tmp_path / "results", request)
    assert (record["engine"], record["precision"]) == (engine, precision)
    table = rows(tmp_path / "results")
    assert set(zip(*(table[name].to_pylist() for name in ("engine", "precision")), strict=True)) == {
        (engine, precision)
    }
    assert table.num_rows == len(paths)


def test_float16_of_tensorflow_is_added_and_compared_on_the_cpu(bundle, tmp_path):
    write_labelled(tmp_path / "data", 6, 1, size=(40, 60))
    done = export(bundle.path, tmp_path / "data", tmp_path / "models", FLOAT16_GRAPH)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    report = open_bundle(result["bundle"]).reports["tensorflow"]["float16"]
    assert (result["engine"], result["precision"]) == (FLOAT16_GRAPH, "float16")
    assert result["findings_agreement"] == report.findings_agreement
    taken = "float16, in which it passed" if result["parity_passed"] else "float32"
    assert f"on GPUs tensorflow computes in {taken}" in done.stderr
    again = export(result["bundle"], tmp_path / "data", tmp_path / "models", FLOAT16_GRAPH)
    assert again.exit_code == 2
    assert "has the engine tensorflow-float16 already" in again.stderr


@pytest.mark.parametrize(
    ("engine", "package", "text"),
    [
        (
            INT8_ENGINE,
            "nncf",
            "is made with NNCF, which is not installed. Install the extra `int8` (pip install '.[int8]'); "
            "scoring does without it.",
        ),
        (
            ONNX_ENGINE,
            "onnxruntime",
            "is made with packages of which onnxruntime is not installed. Install the extra `onnx` on every "
            "node (pip install '.[onnx]').",
        ),
    ],
)
def test_without_the_extra_the_command_says_in_one_line_how_to_get_it(
    tmp_path, monkeypatch, engine, package, text
):
    monkeypatch.setitem(sys.modules, package, None)
    done = export(tmp_path / "absent", tmp_path, tmp_path / "models", engine)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(text)
    assert not (tmp_path / "models").exists()
