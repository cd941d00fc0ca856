"""The README's Python, run unchanged, and its table of columns."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.paths import REPOSITORY

from pneumonia_core.datasets.labelled import read_labelled
from pneumonia_core.findings import NORMAL, PNEUMONIA_UNKNOWN_KIND
from pneumonia_core.results.schema import FILE_SCHEMA, PARTITION, SCHEMA
from pneumonia_core.results.table import open_table
from pneumonia_core.storage.location import open_location

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def code_with(words: str) -> str:
    """The one block of Python in the README that has these words."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if words in block]
    return found


def test_columns_of_the_readme_are_those_of_the_table():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| \S", README, re.MULTILINE)
    types = {field.name: str(field.type) for field in FILE_SCHEMA} | {PARTITION: "date"}
    short = {"float": "float32", "timestamp[us, tz=UTC]": "timestamp"}
    assert rows == [(field.name, short.get(types[field.name], types[field.name])) for field in SCHEMA.fields]


def test_table_is_read_as_the_readme_reads_it(tmp_path, capsys):
    open_table(open_location(str(tmp_path)))
    exec(code_with("/results/scores").replace("/results/scores", str(tmp_path / "scores")), {})
    assert "p_pneumonia" in capsys.readouterr().out


def test_table_of_the_rsna_challenge_is_made_as_the_readme_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(
        "patientId,class\na,Normal\nb,Lung Opacity\nb,Lung Opacity\nc,No Lung Opacity / Not Normal\n"
    )
    exec(code_with("rsna.parquet"), {})
    images = read_labelled("rsna.parquet")
    assert [(image.uri.rpartition("/")[2], image.label) for image in images] == [
        ("a.dcm", NORMAL),
        ("b.dcm", PNEUMONIA_UNKNOWN_KIND),
    ]


@pytest.fixture
def torchvision(monkeypatch):
    """A stand-in for torchvision, which is too large to install here: the random state of a ResNet-18."""
    from pneumonia_core.networks.classifier import build_classifier

    rng = np.random.default_rng(5)
    state = {"fc.weight": rng.normal(size=(1000, 512)), "fc.bias": rng.normal(size=1000)}
    for layer in build_classifier("resnet18", 32).layers:
        if hasattr(layer, "kernel") and layer.kernel.ndim == 4:
            height, width, inputs, outputs = layer.kernel.shape
            norm = layer.name.replace("conv", "bn").replace("downsample.0", "downsample.1")
            state[f"{layer.name}.weight"] = rng.normal(size=(outputs, inputs, height, width))
            for name in ("weight", "bias", "running_mean"):
                state[f"{norm}.{name}"] = rng.normal(size=outputs)
            state[f"{norm}.running_var"] = rng.uniform(0.5, 2, outputs)
            state[f"{norm}.num_batches_tracked"] = np.array(9)
    tensors = {name: SimpleNamespace(numpy=lambda array=array: array) for name, array in state.items()}
    network = SimpleNamespace(state_dict=lambda: tensors)
    models = SimpleNamespace(resnet18=lambda weights: network)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    return state


def test_weights_made_as_the_readme_makes_them_fill_the_network(torchvision, tmp_path, monkeypatch):
    from pneumonia_core.networks.classifier import build_classifier
    from pneumonia_core.networks.pretrained import load_weights

    monkeypatch.chdir(tmp_path)
    exec(code_with("torchvision"), {})
    loaded = load_weights(build_classifier("resnet18", 32), "resnet18.npz")
    assert loaded.stages == ("conv1", "layer1", "layer2", "layer3", "layer4")

    pixel = np.random.default_rng(6).normal(size=64)
    name, state = "layer2.0.downsample", torchvision
    plain = state[f"{name}.0.weight"][:, :, 0, 0] @ pixel
    centred = (plain - state[f"{name}.1.running_mean"]) / np.sqrt(state[f"{name}.1.running_var"] + 1e-5)
    expected = centred * state[f"{name}.1.weight"] + state[f"{name}.1.bias"]
    with np.load("resnet18.npz") as folded:
        np.testing.assert_allclose(
            pixel @ folded[f"{name}.0.weight"][0, 0] + folded[f"{name}.0.bias"], expected
        )
