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
from pneumonia_core.bundles.engines import INT8_ENGINE
from pneumonia_core.phantoms.data_sets import write_labelled


def export(bundle, data, models):
    words = [bundle, "--engine", INT8_ENGINE, "--data", data, "--models", models]
    return CliRunner().invoke(main, ["export", *map(str, words)])


def test_exported_engine_scores_in_int8(ray_here, tmp_path):
    pytest.importorskip("nncf", reason="the extra int8 is not installed")
    if not measure_capabilities(look_for_gpus=False).int8:
        pytest.skip("this processor does not multiply int8")
    bundle = write_guarded_tiny_bundle(tmp_path / "models")
    paths = write_labelled(tmp_path / "data", 6, 1, size=(40, 60))
    done = export(bundle.path, tmp_path / "data", tmp_path / "models")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    extended = open_bundle(result["bundle"])
    assert result["model_id"] == extended.model_id == bundle.model_id
    report = extended.engines[INT8_ENGINE]
    assert result["findings_agreement"] == report.findings_agreement
    assert result["parity_passed"] == report.parity_passed
    assert ("did not pass" in done.stderr) == (not report.parity_passed)
    tests = sum("/test/" in str(path) for path in paths)
    assert result["calibration_images"] + result["held_back_images"] == len(paths) - tests
    request = scoring_request(extended, tmp_path / "data", engine=INT8_ENGINE, precision="auto")
    record = score(tmp_path / "results", request)
    assert (record["engine"], record["precision"]) == (INT8_ENGINE, "int8")
    table = rows(tmp_path / "results")
    assert set(zip(*(table[name].to_pylist() for name in ("engine", "precision")), strict=True)) == {
        (INT8_ENGINE, "int8")
    }
    assert table.num_rows == len(paths)


def test_without_the_extra_the_command_says_in_one_line_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    done = export(tmp_path / "absent", tmp_path, tmp_path / "models")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "is made with NNCF, which is not installed. Install the extra `int8` (pip install '.[int8]'); "
        "scoring does without it."
    )
    assert not (tmp_path / "models").exists()
