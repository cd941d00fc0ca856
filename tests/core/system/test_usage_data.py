"""No library that a command uses sends usage data to its makers."""

import subprocess
import sys

import pytest
from support.paths import REPOSITORY

EXPORT = """
import multiprocessing, sys, urllib.request
from pathlib import Path

def refuse(*arguments, **options):
    raise SystemExit("something was to be sent, or a process started for it")

urllib.request.urlopen = multiprocessing.Process.start = refuse

import keras
from pneumonia_core.bundles.openvino_runtime.export import export_openvino

image = keras.Input((8, 8, 1))
model = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
export_openvino(model, Path(sys.argv[1]) / "model.xml")
"""


def test_export_to_openvino_sends_nothing_and_leaves_no_identifier(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, tmp_path],
        cwd=REPOSITORY,
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.xml").exists()
    # OpenVINO's sender keeps an identifier of the user there.
    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("module", ["openvino.tools.ovc.convert_impl", "openvino.tools.ovc.telemetry_utils"])
def test_openvino_uses_its_own_stub(module):
    code = f"import pneumonia_core, openvino, sys; print(sys.modules[{module!r}].tm.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
