"""Rates are kept beside the results, by kind of node. What cannot be read counts as not measured."""

import json
from dataclasses import replace

import pytest

from pneumonia_core.bundles.choice import EngineChoice
from pneumonia_core.bundles.rates.memory import (
    NodeKind,
    as_json,
    remember_actors,
    remember_rates,
    remembered_actors,
    remembered_rates,
)
from pneumonia_core.storage.location import open_location

FAST = EngineChoice("openvino-int8", "int8", False)
EXACT = EngineChoice("openvino", "float32", False)
HALF = EngineChoice("openvino", "bfloat16", False)
XEON = NodeKind("Intel(R) Xeon(R)", 16.0, 0.0, 8)
EPYC = NodeKind("AMD EPYC 9654", 15.0, 1.0, 8)
FILE = "rates/m.json"
A100 = NodeKind("AMD EPYC 9654", 15.0, 1.0, 1, "NVIDIA A100-SXM4-40GB")


def test_rates_of_each_kind_of_node_are_kept_and_measured_ones_replace_them(tmp_path):
    results = open_location(str(tmp_path))
    assert remembered_rates(results, "m") == {}
    remember_rates(results, "m", {XEON: {FAST: 200.04, EXACT: 50.0, HALF: 0.0}})
    remember_rates(results, "m", {EPYC: {EXACT: 70.0}})
    assert remembered_rates(results, "m") == {
        XEON: {FAST: 200.0, EXACT: 50.0, HALF: 0.0},
        EPYC: {EXACT: 70.0},
    }
    remember_rates(results, "m", {EPYC: {EXACT: 71.0}})
    assert remembered_rates(results, "m")[EPYC] == {EXACT: 71.0}
    assert remembered_rates(results, "another model") == {}
    assert [file.name for file in (tmp_path / "rates").iterdir()] == ["m.json"]


def test_rates_on_a_gpu_are_those_of_its_card_and_never_those_of_the_cpu_beside_it(tmp_path):
    """A run with `--shape cpu` has measured the same engine on the same node."""
    results = open_location(str(tmp_path))
    on_cpu, on_gpu = (EngineChoice("tensorflow", "float32", gpu) for gpu in (False, True))
    remember_rates(results, "m", {EPYC: {on_cpu: 30.0}})
    remember_rates(results, "m", {A100: {on_gpu: 900.0}})
    other = replace(A100, card="NVIDIA L4")
    remember_rates(results, "m", {other: {on_gpu: 300.0}})
    expected = {EPYC: {on_cpu: 30.0}, A100: {on_gpu: 900.0}, other: {on_gpu: 300.0}}
    assert remembered_rates(results, "m") == expected


def test_rates_of_actors_that_share_a_gpu_are_kept_beside_those_of_the_engines(tmp_path):
    results = open_location(str(tmp_path))
    half, exact = (EngineChoice("tensorflow", precision, True) for precision in ("float16", "float32"))
    remember_rates(results, "m", {A100: {half: 900.0}})
    remember_actors(results, "m", {A100: {half: (900.04, 1600.0)}})
    remember_actors(results, "m", {A100: {exact: (400.0,)}})
    remember_rates(results, "m", {EPYC: {EXACT: 70.0}})
    assert remembered_rates(results, "m") == {A100: {half: 900.0}, EPYC: {EXACT: 70.0}}
    assert remembered_actors(results, "m") == {A100: {half: (900.0, 1600.0), exact: (400.0,)}}
    document = json.loads((tmp_path / FILE).read_text())
    # As earlier versions wrote it.
    del document["gpu_actors"]
    (tmp_path / FILE).write_text(json.dumps(document))
    assert remembered_actors(results, "m") == {}
    assert remembered_rates(results, "m")[EPYC] == {EXACT: 70.0}


def test_rates_that_name_no_card_are_those_of_the_cpu(tmp_path):
    """Earlier versions wrote such."""
    results = open_location(str(tmp_path))
    remember_rates(results, "m", {EPYC: {EXACT: 70.0}})
    document = json.loads((tmp_path / FILE).read_text())
    del document["kinds"][0]["card"]
    (tmp_path / FILE).write_text(json.dumps(document))
    assert remembered_rates(results, "m") == {EPYC: {EXACT: 70.0}}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1]",
        lambda text: text.replace("50.0", '"fast"'),
        lambda text: text.replace("50.0", "NaN"),
        lambda text: text.replace("50.0", "-1"),
        lambda text: text.replace('"threads"', '"other"'),
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
    ],
    ids=["half", "empty", "another", "text", "not a number", "negative", "key", "newer"],
)
def test_broken_file_is_as_none_and_is_replaced(tmp_path, change):
    results = open_location(str(tmp_path))
    remember_rates(results, "m", {XEON: {EXACT: 50.0}})
    text = (tmp_path / FILE).read_text()
    assert change(text) != text
    (tmp_path / FILE).write_text(change(text))
    assert remembered_rates(results, "m") == {}
    remember_rates(results, "m", {EPYC: {EXACT: 70.0}})
    assert remembered_rates(results, "m") == {EPYC: {EXACT: 70.0}}


def test_rates_of_other_versions_are_measured_again(tmp_path):
    results = open_location(str(tmp_path))
    remember_rates(results, "m", {XEON: {EXACT: 50.0}})
    document = json.loads((tmp_path / FILE).read_text())
    document["versions"]["openvino"] = "2025.1.0"
    (tmp_path / FILE).write_text(json.dumps(document))
    assert remembered_rates(results, "m") == {}


def test_folder_that_cannot_be_written_is_an_error_of_the_storage(tmp_path):
    (tmp_path / "rates").write_text("a file")
    results = open_location(str(tmp_path))
    with pytest.raises(OSError, match="rates"):
        remember_rates(results, "m", {XEON: {EXACT: 50.0}})
    assert remembered_rates(results, "m") == {}


def test_rates_are_written_by_engine_and_precision():
    assert as_json({EXACT: 50.04, HALF: 30.0, FAST: 200.0}) == {
        "openvino": {"float32": 50.0, "bfloat16": 30.0},
        "openvino-int8": {"int8": 200.0},
    }
