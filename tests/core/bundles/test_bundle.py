"""A bundle holds what scoring needs, and notices any change."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from pneumonia_core.bundles.baseline import read_baseline
from pneumonia_core.bundles.bundle import open_bundle, read_engine_files
from pneumonia_core.bundles.engines import passed_precisions
from pneumonia_core.bundles.writer import with_engines
from pneumonia_core.errors import InvalidInput
from pneumonia_core.system.environment import cpu_has_bfloat16


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle.path, tmp_path / "bundle")


def test_opened_bundle_tells_what_it_was_written_with(tiny_bundle):
    opened = open_bundle(tiny_bundle.path)
    assert opened == tiny_bundle
    assert len(opened.model_id) == 16
    assert set(opened.engines) == {"openvino", "tensorflow"}


def test_bundle_of_an_earlier_version_lacks_what_later_ones_added(copied):
    document = json.loads((copied / "bundle.json").read_text())
    # The only such key that version 0.1.0 requires.
    assert document["temperature"] == 1.0
    for added in ("domain", "calibration", "members", "mirror", "conformal"):
        del document[added]
    del document["precisions"]
    for engine in document["engines"].values():
        del engine["domain_agreement"]
    (copied / "bundle.json").write_text(json.dumps(document))
    opened = open_bundle(copied)
    assert (opened.domain, opened.spec.calibration, opened.spec.conformal) == (None, None, None)
    assert (opened.spec.members, opened.spec.mirror) == (1, False)
    assert opened.engines["openvino"].parity_passed
    # Where it had measured bfloat16 it did not measure float32, and computed in it on other machines.
    assert "float32" in passed_precisions(opened.reports["openvino"])


def test_baseline_is_the_histogram_of_the_validation_scores(tiny_bundle, copied):
    # p_pneumonia of its ten validation images is two thirds.
    assert read_baseline(tiny_bundle) == (0, 0, 0, 0, 0, 0, 10, 0, 0, 0)
    document = json.loads((copied / "bundle.json").read_text())
    del document["files"]["baseline.parquet"]
    (copied / "bundle.json").write_text(json.dumps(document))
    assert read_baseline(open_bundle(copied)) == ()


def test_each_engine_has_its_parity_in_every_precision_of_this_processor(tiny_bundle):
    precisions = {"float32", "bfloat16"} if cpu_has_bfloat16() else {"float32"}
    for name in ("openvino", "tensorflow"):
        reports = tiny_bundle.reports[name]
        assert {report.precision for report in reports.values()} == reports.keys() == precisions
        assert reports["float32"].largest_difference < 1e-4
        assert all(report.auroc_bacterial_difference is not None for report in reports.values())
        if "bfloat16" in reports:
            assert reports["bfloat16"].largest_difference > reports["float32"].largest_difference


def test_version_0_1_0_reads_one_report_of_each_engine_that_it_knows(tiny_bundle):
    """It knows no other key, and takes the fastest engine of those that it finds."""
    known = {"precision", "images_per_s", "auroc_difference", "findings_agreement", "largest_difference"}
    known |= {"domain_agreement", "parity_passed"}
    slow = tiny_bundle.reports["openvino"]["float32"]
    reports = {
        "openvino": {"float32": slow, "bfloat16": replace(slow, precision="bfloat16", images_per_s=1e9)},
        "openvino-int8": {"int8": replace(slow, precision="int8")},
    }
    document = with_engines(tiny_bundle.document, reports)
    assert document["engines"].keys() == {"openvino", "tensorflow"}
    assert all(entry.keys() == known for entry in document["engines"].values())
    assert document["engines"]["openvino"]["precision"] == "bfloat16"
    assert document["precisions"].keys() == {"openvino", "openvino-int8", "tensorflow"}


def test_engine_that_fails_for_the_kind_in_one_precision_has_passed_in_the_others(copied):
    document = json.loads((copied / "bundle.json").read_text())
    exact = document["precisions"]["openvino"]["float32"]
    fast = {**exact, "precision": "bfloat16", "images_per_s": 1e9, "auroc_bacterial_difference": 0.0021}
    document["precisions"]["openvino"] = {"bfloat16": fast, "float32": exact}
    (copied / "bundle.json").write_text(json.dumps(document))
    opened = open_bundle(copied)
    assert passed_precisions(opened.reports["openvino"]) == ("float32",)
    assert opened.engines["openvino"].precision == "float32"


@pytest.mark.parametrize("piece_bytes", [1000, 16 << 20])
def test_one_changed_byte_is_noticed(copied, piece_bytes, monkeypatch):
    monkeypatch.setattr("pneumonia_core.bundles.bundle._PIECE_BYTES", piece_bytes)
    open_bundle(copied)
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


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../secret", "openvino/../../secret", "..\\secret", "link"]
)
def test_file_name_that_leaves_the_bundle_is_refused(copied, name):
    """Whatever its hash says: the content would be shipped to every node."""
    (copied.parent / "secret").write_text("key")
    (copied / "link").symlink_to(copied.parent / "secret")
    document = json.loads((copied / "bundle.json").read_text())
    document["files"][name] = hashlib.sha256(b"key").hexdigest()
    (copied / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match=r"outside the bundle"):
        open_bundle(copied, only=frozenset())


def test_files_of_a_bundle_may_be_links_within_it(copied):
    (copied / "openvino" / "model.bin").rename(copied / "blob")
    (copied / "openvino" / "model.bin").symlink_to("../blob")
    assert open_bundle(copied).path == copied


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


def test_bundle_under_an_alias_stays_the_one_that_was_opened(tiny_bundle, copied, tmp_path):
    alias = tmp_path / "production"
    alias.symlink_to(tiny_bundle.path)
    opened = open_bundle(alias)
    (copied / "openvino" / "model.xml").write_text("another network")
    alias.unlink()
    alias.symlink_to(copied)
    files = read_engine_files(opened, "openvino", "float32")
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
        read_engine_files(opened, "openvino", "float32")


def test_shipped_files_are_a_bundle_for_their_engine(tiny_bundle, tmp_path):
    files = read_engine_files(tiny_bundle, "openvino", "float32")
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert open_bundle(tmp_path, only=frozenset(files)).model_id == tiny_bundle.model_id
