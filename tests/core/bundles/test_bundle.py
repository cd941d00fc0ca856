"""A bundle holds what scoring needs, and notices any change."""

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from pneumonia_core.bundles.bundle import choose_engine, load_engine, open_bundle, read_engine_files
from pneumonia_core.errors import InvalidInput, Remedy


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle.path, tmp_path / "bundle")


def test_opened_bundle_tells_what_it_was_written_with(tiny_bundle):
    opened = open_bundle(tiny_bundle.path)
    assert opened == tiny_bundle
    assert len(opened.model_id) == 16
    assert set(opened.engines) == {"openvino", "tensorflow"}


def test_one_changed_byte_is_noticed(copied):
    file = copied / "openvino" / "model.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"openvino/model\.bin"):
        open_bundle(copied)


def test_missing_file_is_noticed(copied):
    (copied / "model.keras").unlink()
    with pytest.raises(InvalidInput, match=r"model\.keras"):
        open_bundle(copied)


def test_folder_that_is_no_bundle_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InvalidInput, match=r"bundle\.json") as refused:
        open_bundle(tmp_path)
    assert str(tmp_path) in str(refused.value)
    with pytest.raises(InvalidInput, match="absent"):
        open_bundle(tmp_path / "absent")


def test_pinned_hash_refuses_another_manifest(copied):
    pin = hashlib.sha256((copied / "bundle.json").read_bytes()).hexdigest()
    assert open_bundle(f"{copied}@sha256:{pin}").path == copied
    with pytest.raises(InvalidInput, match="pinned"):
        open_bundle(f"{copied}@sha256:{'0' * 64}")


def test_engines_agree_at_float32(tiny_bundle):
    images = np.random.default_rng(1).integers(0, 255, (40, 64, 64)).astype(np.uint8)
    scores = [load_engine(tiny_bundle, name, "float32")(images) for name in ("openvino", "tensorflow")]
    np.testing.assert_allclose(scores[0].probabilities, scores[1].probabilities, atol=1e-4)
    np.testing.assert_allclose(scores[0].probabilities.sum(axis=1), 1, atol=1e-5)
    assert scores[0].domain is None


def test_score_does_not_depend_on_the_other_images_of_a_batch(tiny_bundle):
    images = np.random.default_rng(2).integers(0, 255, (37, 64, 64)).astype(np.uint8)
    engine = load_engine(tiny_bundle, "openvino")
    together = engine(images).probabilities
    alone = np.concatenate([engine(image[None]).probabilities for image in images])
    np.testing.assert_array_equal(together, alone)


def test_no_images_give_no_scores(tiny_bundle):
    assert load_engine(tiny_bundle, "openvino")(np.zeros((0, 64, 64), np.uint8)).probabilities.shape == (0, 3)


def test_unknown_engine_names_those_that_the_bundle_has(tiny_bundle):
    with pytest.raises(InvalidInput, match="openvino, tensorflow"):
        choose_engine(tiny_bundle, "onnx")


@pytest.mark.parametrize(
    ("failed", "gpu", "chosen"),
    [
        ((), True, "tensorflow"),
        (("tensorflow",), True, "openvino"),
        (("tensorflow",), False, "openvino"),
        (("openvino",), False, "tensorflow"),
    ],
)
def test_engine_chosen_by_itself_has_passed_parity_on_a_gpu_as_well(tiny_bundle, failed, gpu, chosen):
    engines = {
        name: dataclasses.replace(
            report, auroc_difference=0.0, findings_agreement=0.5 if name in failed else 1.0
        )
        for name, report in tiny_bundle.engines.items()
    }
    assert choose_engine(dataclasses.replace(tiny_bundle, engines=engines), "auto", gpu) == chosen


def test_no_engine_is_chosen_by_itself_where_none_passed_parity(tiny_bundle):
    engines = {
        name: dataclasses.replace(report, findings_agreement=0.5)
        for name, report in tiny_bundle.engines.items()
    }
    bundle = dataclasses.replace(tiny_bundle, engines=engines)
    for gpu in (False, True):
        with pytest.raises(InvalidInput) as refused:
            choose_engine(bundle, "auto", gpu)
        assert refused.value.remedy == Remedy.NAME_ENGINE
    assert choose_engine(bundle, "tensorflow", True) == "tensorflow"


def test_bundle_under_an_alias_stays_the_one_that_was_opened(tiny_bundle, copied, tmp_path):
    alias = tmp_path / "production"
    alias.symlink_to(tiny_bundle.path)
    opened = open_bundle(alias)
    (copied / "openvino" / "model.xml").write_text("another network")
    alias.unlink()
    alias.symlink_to(copied)
    files = read_engine_files(opened, "openvino")
    assert files["openvino/model.xml"] == (tiny_bundle.path / "openvino" / "model.xml").read_bytes()
    assert not any(name.startswith("saved_model/") for name in files)


def test_bundle_that_was_replaced_since_it_was_opened_is_not_taken_for_it(copied):
    """Also where the new one is a whole bundle: its rows would be called those of the first."""
    opened = open_bundle(copied)
    network = copied / "openvino" / "model.xml"
    network.write_text("another network")
    manifest = (copied / "bundle.json").read_text()
    old = opened.document["files"]["openvino/model.xml"]
    new = hashlib.sha256(network.read_bytes()).hexdigest()
    (copied / "bundle.json").write_text(manifest.replace(old, new).replace(opened.model_id, "0" * 16))
    assert open_bundle(copied).model_id == "0" * 16
    with pytest.raises(InvalidInput, match=r"openvino/model\.xml"):
        read_engine_files(opened, "openvino")


def test_shipped_files_are_a_bundle_for_their_engine(tiny_bundle, tmp_path):
    files = read_engine_files(tiny_bundle, "openvino")
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert open_bundle(tmp_path, only=frozenset(files)).model_id == tiny_bundle.model_id
