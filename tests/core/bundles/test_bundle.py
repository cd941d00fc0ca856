"""A bundle holds what scoring needs, and notices any change."""

import hashlib
import json
import shutil

import pytest

from pneumonia_core.bundles.bundle import open_bundle, read_engine_files
from pneumonia_core.errors import InvalidInput


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
    for engine in document["engines"].values():
        del engine["domain_agreement"]
    (copied / "bundle.json").write_text(json.dumps(document))
    opened = open_bundle(copied)
    assert (opened.domain, opened.spec.calibration, opened.spec.conformal) == (None, None, None)
    assert (opened.spec.members, opened.spec.mirror) == (1, False)
    assert opened.engines["openvino"].parity_passed


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
