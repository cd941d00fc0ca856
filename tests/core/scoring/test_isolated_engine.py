"""An engine in a child process: an image that crashes it alone, twice, is rejected; a death that comes from
outside or from the machine blames no image."""

import dataclasses
import shutil

import numpy as np
import pytest

from pneumonia_core.bundles.choice import load_engine
from pneumonia_core.errors import PneumoniaError, Remedy
from pneumonia_core.scoring.isolated_engine import EngineFiles, isolated_engine
from pneumonia_core.system.failpoints import VARIABLE

URIS = [f"file:///{number}.png" for number in range(5)]
PIXELS = np.random.default_rng(3).integers(0, 255, (len(URIS), 64, 64)).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tiny_bundle):
    return EngineFiles(tiny_bundle.path, "openvino", "float32", 1, gpu=False)


@pytest.fixture(scope="module")
def expected(tiny_bundle):
    return load_engine(tiny_bundle, "openvino", "float32", 1)(PIXELS).probabilities


def test_image_that_crashes_the_engine_costs_itself_alone(files, expected, monkeypatch):
    monkeypatch.setenv(VARIABLE, "engine@/2.png=abort")
    with isolated_engine(files) as scorer:
        scored = scorer(PIXELS, URIS)
    assert {n: rejection.reason for n, rejection in scored.rejections.items()} == {2: "crashed_engine"}
    good = [0, 1, 3, 4]
    np.testing.assert_array_equal(scored.scores.probabilities[good], expected[good])


def test_image_on_which_the_engine_crashes_but_once_has_its_scores(files, expected, monkeypatch, tmp_path):
    crashes = [f"engine@/2.png=abort,once:{tmp_path / str(number)}" for number in range(2)]
    monkeypatch.setenv(VARIABLE, ";".join(crashes))
    with isolated_engine(files) as scorer:
        scored = scorer(PIXELS, URIS)
    assert (tmp_path / "1").exists()
    assert not scored.rejections
    np.testing.assert_array_equal(scored.scores.probabilities, expected)


def test_child_that_is_killed_from_outside_blames_no_image(files, expected, monkeypatch, tmp_path):
    kills = [f"engine@/2.png=kill,once:{tmp_path / str(number)}" for number in range(4)]
    monkeypatch.setenv(VARIABLE, ";".join(kills))
    with isolated_engine(files) as scorer:
        scored = scorer(PIXELS, URIS)
    assert (tmp_path / "3").exists()
    assert not scored.rejections
    np.testing.assert_array_equal(scored.scores.probabilities, expected)


def test_engine_that_crashes_on_any_image_blames_none(files, monkeypatch):
    monkeypatch.setenv(VARIABLE, "engine=abort")
    with isolated_engine(files) as scorer, pytest.raises(PneumoniaError, match="every image") as raised:
        scorer(PIXELS, URIS)
    assert raised.value.remedy == Remedy.OTHER_ENGINE


def test_engine_that_raises_on_one_image_costs_itself_alone(files, monkeypatch):
    monkeypatch.setenv(VARIABLE, "engine@/4.png=enospc")
    with isolated_engine(files) as scorer:
        scored = scorer(PIXELS, URIS)
    assert {n: rejection.reason for n, rejection in scored.rejections.items()} == {4: "engine_error"}


def test_engine_that_does_not_open_is_no_fact_about_an_image(files, tmp_path):
    shutil.copy(files.folder / "bundle.json", tmp_path)
    broken = dataclasses.replace(files, folder=tmp_path)
    with isolated_engine(broken) as scorer, pytest.raises(PneumoniaError, match="does not open"):
        scorer(PIXELS, URIS)
