"""Decoding in a child process: an image that kills its decoder is rejected, and no image where no child
starts."""

import sys

import pytest
from support.images.archived import jpeg
from support.images.decoded import PICTURE
from support.images.dicom_files import dicom_file

from pneumonia_core.archives.entries import FetchedImage, ImageRef
from pneumonia_core.errors import PneumoniaError
from pneumonia_core.scoring.isolation import decoder, isolated_decoder
from pneumonia_core.system.failpoints import VARIABLE


def test_image_that_kills_its_decoder_costs_itself_alone(tmp_path, monkeypatch):
    for name in ("good", "deadly"):
        (tmp_path / f"{name}.jpeg").write_bytes(jpeg(1))
    monkeypatch.setenv(VARIABLE, "decode@deadly=abort")
    with isolated_decoder() as decode:
        rejections = [
            decode(FetchedImage(ImageRef(f"file://{tmp_path}/{name}.jpeg")), 64).rejection
            for name in ("good", "deadly", "good")
        ]
    assert [each and each.reason for each in rejections] == [None, "crashed_decoder", None]


@pytest.mark.parametrize("isolated", [False, True])
def test_chest_is_trusted_in_children_as_in_this_process(tmp_path, isolated):
    (tmp_path / "knee.dcm").write_bytes(dicom_file(PICTURE, BodyPartExamined="KNEE", Modality="OT"))
    knee = FetchedImage(ImageRef(f"file://{tmp_path}/knee.dcm"))
    for trust_chest, reason in ((False, "not_chest_radiograph"), (True, None)):
        with decoder(isolated, trust_chest) as decode:
            rejection = decode(knee, 64).rejection
        assert (rejection and rejection.reason) == reason


def test_decoder_that_is_killed_from_outside_blames_no_image(tmp_path, monkeypatch):
    (tmp_path / "good.jpeg").write_bytes(jpeg(1))
    kills = [f"decode@good=kill,once:{tmp_path / str(number)}" for number in range(3)]
    monkeypatch.setenv(VARIABLE, ";".join(kills))
    with isolated_decoder() as decode:
        decoded = decode(FetchedImage(ImageRef(f"file://{tmp_path}/good.jpeg")), 64)
    assert (tmp_path / "2").exists()
    assert decoded.rejection is None


def test_decoder_that_does_not_start_fails_the_run_and_blames_no_image(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with isolated_decoder() as decode, pytest.raises(PneumoniaError, match="did not start"):
        decode(FetchedImage(ImageRef("file:///image.png")), 64)
